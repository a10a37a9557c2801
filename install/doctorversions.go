package install

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// files compares the files of the versions that run, or that a rollback runs, with the
// digests that staging recorded: flash memory loses bits, and people change files.
func (d *doctor) files(ctx context.Context) {
	t, err := d.l.Tree()
	if err != nil {
		return // another check reports the root
	}
	var faults []fault
	for v, why := range t.Damaged {
		faults = append(faults, fault{fmt.Sprintf("%s cannot be started: %s", d.l.Version(v), why), "the manager or a stick can stage it again; or restore the file"})
	}
	done := map[release.Version]bool{{}: true}
	for _, v := range []release.Version{t.Current, t.LastGood, t.Previous} {
		if done[v] {
			continue
		}
		done[v] = true
		changes, err := stage.Compare(ctx, d.l, v)
		for _, c := range changes {
			remedy := "if nobody changed it on purpose, restore it from the release"
			if c.Code {
				remedy = "restore it from the release; until then the node refuses upgrades, as it could not roll back"
			}
			faults = append(faults, fault{filepath.Join(d.l.Version(v), c.Path) + " " + c.Why, remedy})
		}
		if err != nil {
			faults = append(faults, fault{fmt.Sprintf("not every file of %s can be compared: %v", v, err), "see the owners and modes, and the disk: journalctl -k"})
		}
	}
	d.check("files", faults...)
}
