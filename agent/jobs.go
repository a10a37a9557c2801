package agent

// jobs runs functions one after another, beside the loop of a session: reading and writing the
// install root takes minutes on a slow disk. The loop meanwhile answers the manager, and tells
// systemd that it runs. The fields and methods belong to the loop.
type jobs struct {
	queue []job
	busy  bool
	done  chan func() error // what the job that ended leaves to the loop
}

// job runs beside the loop, and returns what the loop then does, or nil.
type job func() func() error

func newJobs() *jobs { return &jobs{done: make(chan func() error, 1)} }

func (j *jobs) add(f job) {
	j.queue = append(j.queue, f)
	j.start()
}

func (j *jobs) start() {
	if j.busy || len(j.queue) == 0 {
		return
	}
	f := j.queue[0]
	j.queue, j.busy = j.queue[1:], true
	go func() { j.done <- f() }()
}

// finish starts the next job, and does what the one that ended left.
func (j *jobs) finish(then func() error) error {
	j.busy = false
	j.start()
	if then == nil {
		return nil
	}
	return then()
}

// wait waits for the job that runs.
func (j *jobs) wait() {
	if j.busy {
		<-j.done
	}
}
