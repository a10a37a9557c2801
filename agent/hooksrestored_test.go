//go:build !sim

package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

// What the service saved is restored by each rollback that an operator repeats after it failed,
// only by the version that saved it, and at once, whatever an earlier trial did. Once the older
// version is kept, its own data are the good ones.
func TestWhatAnOperatorsRollbackRestores(t *testing.T) {
	migrated := func(m *migration) { // 1.1.0 has migrated its data
		m.swaps("1.0.0", "1.1.0")
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
	}
	migrates(t, "the rollback is repeated", func(m *migration) {
		migrated(m)
		for range 3 {
			rollBack(m.t, m.l, "1.0.0")
			m.failsTrial("1.0.0")
			m.want("1.0.0")
			m.runs("1.1.0")
			m.want("1.1.0", "1.0.0 to 1.1.0")
		}
		rollBack(m.t, m.l, "1.0.0")
		m.runs("1.0.0")
		m.want("1.0.0", "1.1.0 to 1.0.0")
	})
	migrates(t, "the newer version has no hooks", func(m *migration) {
		migrated(m)
		rollBack(m.t, m.l, "1.0.0")
		m.failsTrial("1.0.0")
		c := m.of("1.1.0")
		c.BeforeTrial, c.RolledBack, c.Kept = nil, nil, nil
		_, stop, done := started(m.t, c)
		time.Sleep(time.Minute)
		end(m.t, stop, done, nil)
		m.data = "1.1.0"
		rollBack(m.t, m.l, "1.0.0")
		m.failsTrial("1.0.0")
		m.want("1.0.0")
	})
	migrates(t, "the older version was kept", func(m *migration) {
		migrated(m)
		rollBack(m.t, m.l, "1.0.0")
		m.runs("1.0.0")
		m.want("1.0.0", "1.1.0 to 1.0.0")
		m.saved = "of long ago"
		rollBack(m.t, m.l, "1.1.0")
		m.runs("1.1.0")
		m.want("1.1.0", "1.0.0 to 1.1.0")
		rollBack(m.t, m.l, "1.0.0")
		m.runs("1.0.0")
		m.want("1.0.0", "1.1.0 to 1.0.0")
	})
	migrates(t, "a version that did not save the data", func(m *migration) {
		migrated(m)
		m.swaps("1.1.0", "1.2.0")
		m.runs("1.2.0")
		m.want("1.2.0", "1.1.0 to 1.2.0")
		rollBack(m.t, m.l, "1.0.0")
		m.failsTrial("1.0.0")
		m.want("1.2.0")
		m.runs("1.2.0")
		m.want("1.2.0")
		rollBack(m.t, m.l, "1.1.0")
		m.failsTrial("1.1.0")
		m.want("1.1.0")
	})
	migrates(t, "the process died in earlier calls", func(m *migration) {
		migrated(m)
		died(m.t, m.l, 9)
		rollBack(m.t, m.l, "1.0.0")
		_, stop, done := started(m.t, m.of("1.0.0"))
		synctest.Wait()
		m.want("1.0.0")
		end(m.t, stop, done, nil)
	})
}
