package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

// One password is hashed at a time. Sources take turns, users who signed in before go
// first, and a request that would wait too long is refused at once.
func TestHashQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var q hashQueue
		var order []string // written by whoever has the turn
		first, err := q.enter(t.Context(), stranger, "a", "n")
		if err != nil {
			t.Fatal(err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		wait := func(ctx context.Context, class int, source, label string) {
			go func() {
				leave, err := q.enter(ctx, class, source, label)
				if err != nil {
					label = fmt.Sprintf("%s: %v", label, err)
				} else {
					defer leave()
				}
				order = append(order, label)
			}()
			synctest.Wait()
		}
		wait(t.Context(), stranger, "a", "a2")
		wait(t.Context(), stranger, "a", "a3")
		if _, err := q.enter(t.Context(), stranger, "a", "a4"); !errors.Is(err, ErrBusy) {
			t.Errorf("a fourth of one source: %v", err)
		}
		wait(t.Context(), stranger, "b", "b1")
		wait(canceled, stranger, "c", "c1")
		wait(t.Context(), own, "d", "d1")
		cancel()
		synctest.Wait()
		first()
		synctest.Wait()
		if want := []string{"c1: context canceled", "d1", "a2", "b1", "a3"}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
		if q.running || len(q.held) != 0 || q.inAll != [classes]int{} || len(q.turns[stranger])+len(q.waiting[stranger]) != 0 {
			t.Errorf("left: %+v", &q)
		}

		// In all, and of one name.
		var leaves []func()
		ctx, stop := context.WithCancel(t.Context())
		enter := func(class int, source, name string) error {
			done := make(chan error, 1)
			go func() {
				leave, err := q.enter(ctx, class, source, name)
				if err == nil {
					leaves = append(leaves, leave)
				}
				done <- err
			}()
			synctest.Wait()
			select {
			case err := <-done:
				return err
			default:
				return nil // it waits
			}
		}
		for i := range hashesByName {
			if err := enter(stranger, fmt.Sprint("s", i), "n"); err != nil {
				t.Errorf("%d of a name: %v", i, err)
			}
		}
		if err := enter(stranger, "other", "n"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more of a name: %v", err)
		}
		for i := hashesByName; i < hashesInAll; i++ {
			if err := enter(stranger, fmt.Sprint("s", i), fmt.Sprint("n", i)); err != nil {
				t.Errorf("%d in all: %v", i, err)
			}
		}
		if err := enter(stranger, "other", "other"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more in all: %v", err)
		}
		if err := enter(own, "other", "n"); err != nil {
			t.Errorf("of a user who signed in before: %v", err)
		}
		stop()
		synctest.Wait()
		for _, leave := range leaves {
			leave()
		}
		if q.running || len(q.held) != 0 || q.inAll != [classes]int{} {
			t.Errorf("left: %+v", &q)
		}
	})
}
