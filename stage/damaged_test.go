package stage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// A version whose program is damaged is staged again from the same tarball, and is the
// first to be removed where versions are too many.
func TestADamagedVersionIsStagedAgain(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	v := release.MustVersion("1.0.0")
	program := filepath.Join(s.Layout.Version(v), s.Binary)
	for _, damage := range []func() error{
		func() error { return nil },
		func() error { return os.Remove(program) },
		func() error { return os.Truncate(program, 0) },
		func() error { return os.Chmod(program, 0o600) },
	} {
		if err := damage(); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if _, err := s.Stage(t.Context(), s.Host(v), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(program); err != nil || st.Size() == 0 || st.Mode()&0o111 == 0 {
			t.Errorf("%v, %v", st, err)
		}
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"0.8.0", "0.9.0"} {
		if err := os.Mkdir(s.Layout.Version(release.MustVersion(other)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Prune(t.Context(), s.Layout, 2, release.Version{}); err != nil {
		t.Fatal(err)
	}
	tree, err := s.Layout.Tree()
	if err != nil || len(tree.Versions) != 2 || len(tree.Damaged) != 0 {
		t.Errorf("%+v, %v", tree, err)
	}
}
