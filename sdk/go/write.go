package pipeplug

import (
	"fmt"
	"math"
	"os"
	"syscall"
	"time"
)

// write writes a whole piece, or gives EAGAIN with what was written before.
func (w *writer) write(piece piece, format Format, patience patience) (n int, err error) {
	p := piece.bytes
	holds := w.capacity(2 * len(p))
	once := format == FormatClassic && w.readsOnce.Load()
	if once && len(p) > pipeBuf {
		if patience != block {
			return 0, syscall.EAGAIN
		}
		if len(p) > holds && piece.header > 0 {
			// There is room for the buffer alone, once the header was read.
			if n, err = w.writeAll(p[:piece.header], once, block); err != nil {
				return n, err
			}
			p = p[n:]
		}
		w.awaitEmpty()
	}
	wrote, err := w.writeAll(p, once, patience)
	return n + wrote, err
}

// capacity is what the pipe holds, after it was grown for size bytes as far as it may.
func (w *writer) capacity(size int) int {
	w.pipe.Lock()
	defer w.pipe.Unlock()
	if size > w.holds && !w.isGrown {
		w.isGrown = true
		if w.holds = math.MaxInt; isPipe(w.fd) { // a socket takes what it is given
			w.holds = growPipe(w.fd, largestPipe)
		}
	}
	return w.holds
}

// tooLarge refuses a buffer that a reader of the original Go package would lose: it reads a buffer
// with one read(2), and no pipe holds as much.
func (c *Conn) tooLarge(size int) error {
	if Format(c.format.Load()) != FormatClassic || !c.w.readsOnce.Load() || size <= pipeBuf {
		return nil
	}
	holds := c.w.capacity(2 * size)
	if size <= holds {
		return nil
	}
	return &wrapped{ErrTooLarge, fmt.Sprintf(
		"a buffer of %d bytes is larger than the pipe, which holds %d: %s may read a buffer at once, as the original Go package does, and would lose it; send it in several, or have both sides use the standard format",
		size, holds, c.peer)}
}

// writeAll writes all of p, or gives EAGAIN with how much was written before.
func (w *writer) writeAll(p []byte, once bool, patience patience) (n int, err error) {
	var began time.Time // of waiting
	for n < len(p) {
		part := p[n:]
		if w.blocking || (once && patience != block) {
			if !w.writable(0) {
				if patience != block {
					return n, syscall.EAGAIN
				}
				if !w.writable(-1) {
					return n, os.ErrClosed
				}
			}
			if w.blocking && len(part) > pipeBuf && !once {
				part = part[:pipeBuf] // a pipe that is ready has room for this
			}
		}
		if !once && len(part) > writeSize {
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

// awaitEmpty waits until the pipe is empty, or the output is closed: a reader that takes a buffer in
// one read has to find all of it.
func (w *writer) awaitEmpty() {
	for pause := 100 * time.Microsecond; unreadBytes(w.fd) > 0; {
		select {
		case <-w.ended:
			return
		case <-time.After(pause):
		}
		if pause < 5*time.Millisecond {
			pause += pause / 8
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
