package pipeplug

import (
	"os"
	"sync/atomic"
)

// wake ends the wait for input at the end of the connection. It closes its descriptors itself, once
// no goroutine waits with them: a program that starts many plugins does not depend on the collector.
type wake struct {
	fd    int // becomes readable
	r, w  *os.File
	users atomic.Int32 // those that wait, and one until the end
}

func newWake() (*wake, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k := &wake{fd: int(r.Fd()), r: r, w: w}
	k.users.Store(1)
	return k, nil
}

// use keeps the descriptor open until release. It is false after the end.
func (k *wake) use() bool {
	for {
		n := k.users.Load()
		if n == 0 {
			return false
		}
		if k.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (k *wake) release() {
	if k.users.Add(-1) == 0 {
		_ = k.r.Close()
	}
}

// end wakes all that wait. It is called once.
func (k *wake) end() {
	_ = k.w.Close() // poll sees the end of the pipe
	k.release()
}
