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

const (
	inlineTime  = 20 * time.Microsecond // a handler that takes less returns at once
	bestScore   = 8
	worstScore  = -32
	watchTick   = 500 * time.Microsecond // how long a handler may hold up the goroutine that reads
	leaseTick   = time.Millisecond       // how long callers in sequence may pause and still read for themselves
	leaderPause = int64(2 * time.Millisecond)
)

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
	cmd      *command
	commands map[string]*command
	head     chunk
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
	for {
		n, err := poll(fds[:], timeout)
		if err == syscall.EINTR {
			continue
		}
		return err != nil || (n > 0 && fds[0].revents != 0 && fds[1].revents == 0)
	}
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

type stepResult int

const (
	stepRead stepResult = iota
	stepTimeout
	stepLost // the role has gone to another goroutine, or the connection has ended
)

// step reads once and handles what came. The caller has the reading role.
func (c *Conn) step(timeout int64, from origin) stepResult {
	r := &c.in
	if !r.wait(timeout) {
		if c.isOver() {
			return stepLost
		}
		return stepTimeout
	}
	if err := r.read(); err != nil {
		c.ended(err)
		return stepLost
	}
	return c.dispatchAll(from)
}

// dispatchAll handles the chunks that were read.
func (c *Conn) dispatchAll(from origin) stepResult {
	c.spawned = false
	for {
		ch, ok, err := c.in.next(c)
		if err != nil {
			c.ended(err)
			return stepLost
		}
		if !ok {
			break
		}
		if !c.dispatch(ch, from) {
			return stepLost
		}
	}
	if c.spawned {
		// What was woken runs first, and its answers go out with those that wait here.
		runtime.Gosched()
	}
	c.w.flush()
	return stepRead
}

// readLoop reads until the end of the connection, or until another goroutine has taken over.
func (c *Conn) readLoop() {
	if c.dispatchAll(fromReader) == stepLost {
		return
	}
	lease := time.NewTimer(time.Hour)
	defer lease.Stop()
	for {
		c.pause()
		c.replied = false
		if c.step(-1, fromReader) == stepLost {
			return
		}
		if !c.replied || c.openCalls.Load() != 0 {
			continue
		}
		// The last call has its reply: the next one may read its reply by itself, which spares two
		// switches of goroutines. This goroutine comes back when there is none for a while.
		select {
		case <-c.readerNeeded:
		default:
		}
		c.parked.Store(true)
		c.reading.Unlock()
		for {
			led := c.led.Load()
			if !lease.Stop() {
				select {
				case <-lease.C:
				default:
				}
			}
			lease.Reset(leaseTick)
			select {
			case <-c.readerNeeded:
			case <-lease.C:
				if c.led.Load() != led {
					continue
				}
			}
			if c.reading.TryLock() {
				break
			}
		}
		c.parked.Store(false)
		if c.isOver() {
			return
		}
	}
}

// lead reads for a caller until its call is complete. It is false if the caller has to wait for the
// goroutine that reads.
func (c *Conn) lead(p *Pending) bool {
	if c.openCalls.Load() != 1 || !c.reading.TryLock() {
		c.needReader()
		return false
	}
	c.led.Add(1)
	for !p.complete.Load() {
		switch c.step(leaderPause, fromLeader) {
		case stepLost:
			// The connection has ended: no other goroutine takes the role of a leader away.
			c.reading.Unlock()
			c.needReader()
			return false
		case stepTimeout:
			c.reading.Unlock()
			c.needReader()
			return p.complete.Load()
		}
	}
	c.reading.Unlock()
	if c.openCalls.Load() != 0 {
		c.needReader()
	}
	return true
}

// needReader has the goroutine that reads come back if it has left that to callers.
func (c *Conn) needReader() {
	if !c.parked.Load() {
		return
	}
	select {
	case c.readerNeeded <- struct{}{}:
	default:
	}
}

// unblock has another goroutine read if the one that reads runs a handler. Everything that blocks
// calls it first: the handler may be what blocks.
func (c *Conn) unblock() {
	if running := c.inline.Load(); running != 0 && c.inline.CompareAndSwap(running, 0) {
		go c.readLoop()
	}
}

// watch is called by a timer while handlers run on the goroutine that reads.
func (c *Conn) watch() {
	seq := c.inlineSeq.Load()
	if seq == c.watched {
		c.unblock()
		if c.quiet++; c.quiet > 4 {
			c.watching.Store(false)
			// A handler that began meanwhile has seen the timer at work.
			if c.inlineSeq.Load() == seq || !c.watching.CompareAndSwap(false, true) {
				return
			}
		}
	} else {
		c.quiet = 0
	}
	c.watched = seq
	c.watcher.Reset(watchTick)
}

// runInline runs a handler on the goroutine that reads. It is false if another one reads now.
func (c *Conn) runInline(req *Request) bool {
	seq := c.inlineSeq.Add(1)
	if seq == 0 {
		seq = c.inlineSeq.Add(1)
	}
	req.inline = seq
	c.inline.Store(seq)
	if !c.watching.Load() && c.watching.CompareAndSwap(false, true) {
		c.watcher.Reset(watchTick)
	}
	c.serve(req)
	if !c.inline.CompareAndSwap(seq, 0) {
		c.w.flush()
		return false
	}
	return true
}
