package pipeplug

import (
	"os"
	"syscall"
	"time"
)

// write writes all of p, or gives EAGAIN with what was written before.
func (w *writer) write(p []byte, format Format, patience patience) (n int, err error) {
	if len(p) > w.grown/2 && w.grown < largestPipe {
		size := growPipe(w.fd, largestPipe)
		if w.grown = size; size < largestPipe {
			w.grown = largestPipe // there is no more to ask for
		}
	}
	if format == FormatClassic && len(p) > pipeBuf {
		if patience != block {
			return 0, syscall.EAGAIN
		}
		w.awaitEmpty(len(p))
	}
	var began time.Time // of waiting
	for n < len(p) {
		part := p[n:]
		if w.blocking || (format == FormatClassic && patience != block) {
			if !w.writable(0) {
				if patience != block {
					return n, syscall.EAGAIN
				}
				if !w.writable(-1) {
					return n, os.ErrClosed
				}
			}
			if w.blocking && len(part) > pipeBuf && format != FormatClassic {
				part = part[:pipeBuf] // a pipe that is ready has room for this
			}
		}
		if format != FormatClassic && len(part) > writeSize {
			part = part[:writeSize]
		}
		wrote, err := syscall.Write(w.fd, part)
		if wrote > 0 {
			n += wrote
			continue
		}
		switch err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			if patience == brief && began.IsZero() {
				began = time.Now()
			}
			switch {
			case patience == leave, patience == brief && (time.Since(began) > briefTotal || !w.writable(briefWait)):
				return n, err
			case patience == block && !w.writable(-1):
				return n, os.ErrClosed
			}
		default:
			return n, err
		}
	}
	return n, nil
}

// awaitEmpty waits until a pipe has room for a chunk of the classic format, whose reader takes a
// buffer in one read. A pipe that stays full for a second, or is too small, gets it in pieces.
func (w *writer) awaitEmpty(size int) {
	for i := 0; i < 10000 && unreadBytes(w.fd) > 0; i++ {
		time.Sleep(100 * time.Microsecond)
		select {
		case <-w.ended:
			return
		default:
		}
	}
}

// lookTick is how often a write that waits looks for the close of the output. The end of the input is
// no reason to stop: the peer may still read.
const lookTick = int64(50 * time.Millisecond)

// writable waits until the descriptor takes bytes, or has an error to tell. It is false at the time
// limit, and once the output is closed.
func (w *writer) writable(timeout int64) bool {
	fds := [1]pollFd{{fd: int32(w.fd), events: pollOut}}
	tick := timeout
	if timeout < 0 {
		tick = lookTick
	}
	for {
		n, err := poll(fds[:], tick)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return timeout < 0
		case n > 0:
			return true
		case timeout >= 0:
			return false
		default:
			select {
			case <-w.ended:
				return false
			default:
			}
		}
	}
}
