package pipeplug

import (
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	readSize  = 64 << 10
	startSize = 1 << 20 // what is made for a buffer that is announced
)

// chunk is one that has arrived. The buffer is the receiver's.
type chunk struct {
	id        uint64
	direction byte
	cmd       *command
	buffer    []byte
}

// command is the name of a command, kept so that it is allocated once, and how long its handler takes.
type command struct {
	name     string
	reserved bool
	// score is above 0 if the handler returns at once, so that it may run on the goroutine that reads.
	score atomic.Int32
}

func (k *command) took(d time.Duration) {
	switch {
	case d > inlineTime:
		k.score.Store(worstScore)
	case k.score.Load() < bestScore:
		k.score.Add(1)
	}
}

// reader is what the goroutine with the reading role works on.
type reader struct {
	file     *os.File
	fd       int
	wake     *wake
	buf      []byte
	pos, end int
	dec      decoder
	left     uint64 // bytes of the current chunk's buffer that are still to come
	inBody   bool
	body     []byte
	commands map[string]*command
	head     chunk
	luck     int        // how often it was of use to look for input, of late
	closing  sync.Mutex // around read(2), and the close of the descriptor
	closed   bool
}

// command returns the one kept for a name.
func (r *reader) command(name []byte) *command {
	if k := r.commands[string(name)]; k != nil {
		return k
	}
	k := &command{name: string(name)}
	k.reserved = isReserved(k.name)
	// The peer chooses the names: what is kept of them has a limit.
	if len(r.commands) < 1024 && len(name) <= 256 {
		r.commands[k.name] = k
	}
	return k
}

// next takes one chunk out of what was read. ok is false if there is none that is complete.
func (r *reader) next(c *Conn) (got chunk, ok bool, err error) {
	for {
		p := r.buf[r.pos:r.end]
		if !r.inBody {
			n, done, err := r.dec.header(p)
			r.pos += n
			if err != nil {
				return got, false, err
			}
			if !done {
				return got, false, nil
			}
			p = p[n:]
			if c.format.Load() == int32(FormatAuto) {
				c.format.Store(int32(r.dec.format))
			}
			r.left = r.dec.bufLen
			r.body = nil
			if r.dec.skip != "" {
				c.skipped(&r.dec)
			} else {
				r.head = chunk{id: r.dec.id, direction: byte(r.dec.direction), cmd: r.command(r.dec.cmd)}
			}
			r.inBody = true
		}
		n := len(p)
		if uint64(n) > r.left {
			n = int(r.left)
		}
		if r.dec.skip == "" && n > 0 {
			if r.body == nil {
				// Memory is for what has come. One chunk at a time may be given a little more.
				r.body = make([]byte, 0, minSize(r.left))
			}
			r.grow(n)
			r.body = append(r.body, p[:n]...)
		}
		r.pos += n
		r.left -= uint64(n)
		r.dec.took(n, r.left)
		if r.left > 0 {
			return got, false, nil
		}
		r.inBody = false
		if r.dec.skip != "" {
			continue
		}
		r.head.buffer, r.body = r.body, nil
		return r.head, true, nil
	}
}

// minSize is how much memory is made for a buffer before its bytes have come.
func minSize(left uint64) uint64 {
	if left > startSize {
		return startSize
	}
	return left
}

// grow makes room for at least n more bytes of the body.
func (r *reader) grow(n int) {
	if cap(r.body)-len(r.body) >= n {
		return
	}
	size := uint64(len(r.body)) * 2
	if least := uint64(len(r.body) + n); size < least {
		size = least
	}
	if all := uint64(len(r.body)) + r.left; size > all {
		size = all
	}
	body := make([]byte, len(r.body), size)
	copy(body, r.body)
	r.body = body
}

// wait waits for input; false at the time limit and at the end of the connection.
func (r *reader) wait(timeout int64) bool {
	if !r.wake.use() {
		return false
	}
	defer r.wake.release()
	fds := [2]pollFd{{fd: int32(r.fd), events: pollIn}, {fd: int32(r.wake.fd), events: pollIn}}
	n, err := r.look(fds[:])
	for n == 0 || err == syscall.EINTR {
		if n, err = poll(fds[:], timeout); n == 0 && err == nil {
			return false
		}
	}
	return err != nil || (fds[0].revents != 0 && fds[1].revents == 0)
}

const (
	lookTime = 25 * time.Microsecond // a change of processes takes about as long
	mostLuck = 8
	lookRest = 32 // waits without a look after one in vain
)

// look looks for input for a short time, before the thread sleeps: input that comes meanwhile costs no
// change of threads. It does so as long as that is of use, and others have nothing to run.
func (r *reader) look(fds []pollFd) (n int, err error) {
	if r.luck < 0 {
		r.luck++
		return 0, nil
	}
	for began := time.Now(); time.Since(began) < lookTime; {
		if n, err = pollNow(fds); n != 0 || err != nil {
			if r.luck < mostLuck {
				r.luck++
			}
			return n, err
		}
		runtime.Gosched()
	}
	if r.luck -= 2; r.luck < 0 {
		r.luck = -lookRest
	}
	return 0, nil
}

// read reads once, after all before was taken.
func (r *reader) read() error {
	direct := r.inBody && r.dec.skip == "" && r.left >= readSize/2
	var to []byte
	if direct {
		if r.body == nil {
			r.body = make([]byte, 0, minSize(r.left))
		}
		if cap(r.body) == len(r.body) {
			r.grow(1)
		}
		to = r.body[len(r.body):cap(r.body)]
		if uint64(len(to)) > r.left {
			to = to[:r.left]
		}
	} else {
		r.pos, r.end = 0, 0
		to = r.buf
	}
	for {
		n, err := r.sysRead(to)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return nil
		case err != nil:
			return err
		case n == 0:
			if err := r.dec.end(); err != nil {
				return err
			}
			return io.EOF
		case direct:
			r.body = r.body[:len(r.body)+n]
			r.left -= uint64(n)
			r.dec.took(n, r.left)
		default:
			r.end = n
		}
		return nil
	}
}

func (r *reader) sysRead(to []byte) (int, error) {
	r.closing.Lock()
	defer r.closing.Unlock()
	if r.closed {
		return 0, os.ErrClosed
	}
	return syscall.Read(r.fd, to)
}
