package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bilbycast/edge-agent/fsutil"
)

// Manager is what the node learned of its manager in its last session. The zero value is
// that of a node without one.
type Manager struct {
	// Key is the fingerprint of the manager's key, as manager.key_fingerprint has it; ""
	// without TLS.
	Key string `json:"key,omitzero"`
	// Probe is whether the manager announced that it knows probes.
	Probe bool `json:"probe"`
}

const maxManager = 4 << 10 // bytes

// ReadManager returns what the node learned of its manager in its last session. With an
// error it is zero.
func (l Layout) ReadManager() (Manager, error) {
	b, err := fsutil.ReadFile(l.ManagerFile(), maxManager)
	if errors.Is(err, fs.ErrNotExist) {
		return Manager{}, nil
	}
	if err != nil {
		return Manager{}, err
	}
	var m Manager
	if err := json.Unmarshal(b, &m); err != nil {
		return Manager{}, fmt.Errorf("%s is damaged; the agent writes it again at its next session: %w", l.ManagerFile(), err)
	}
	return m, nil
}
