package pipeplug

import (
	"runtime"
	"time"
)

const (
	inlineTime  = 20 * time.Microsecond // a handler that takes less returns at once
	bestScore   = 8
	worstScore  = -32
	watchTick   = 500 * time.Microsecond // how long a handler may hold up the goroutine that reads
	leaseTick   = time.Millisecond       // how long callers in sequence may pause and still read for themselves
	leaderPause = int64(2 * time.Millisecond)
)

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
