package pipeplug

import (
	"context"
	"runtime/debug"
	"time"
)

// origin is the goroutine that admits a request.
type origin int

const (
	fromReader origin = iota // the one that reads
	fromLeader               // a caller that reads, whose goroutine runs no handlers
	fromStart                // another one, which has no reading role
)

// admit runs the handler of a request, or lets it wait. It is false if another goroutine has the
// reading role now.
func (c *Conn) admit(req *Request, from origin) bool {
	streams := req.parts != nil || req.replies != nil
	tracked := !req.oneWay || streams
	c.mu.Lock()
	if c.err != nil && !c.isAnswered {
		c.mu.Unlock()
		return true
	}
	if streams && c.inStreams >= c.options.MaxStreams {
		c.tookLocked(weight(req.Command, len(req.Data)))
		c.mu.Unlock()
		err := Errorf(CodeOverloaded, "%d streams are open, which is the limit", c.options.MaxStreams)
		if req.oneWay {
			c.w.put(Format(c.format.Load()), req.id, response, cmdEnough, []byte(err.Message), false)
		} else {
			c.refuse(req.id, request, err, req.Command)
		}
		return true
	}
	if tracked && c.features.Load()&(featureCancel|featureStream|featureContext) != 0 {
		c.requests[req.id] = req
		req.listed = true
	}
	if streams {
		c.inStreams++
	}
	busy := c.sequences[req.Command]
	if c.running >= c.options.MaxHandlers || (busy != nil && *busy) {
		c.waiting = append(c.waiting, req)
		c.waitingSize += weight(req.Command, len(req.Data))
		c.mu.Unlock()
		return true
	}
	if busy != nil {
		*busy, req.turn = true, busy
	}
	c.running++
	c.tookLocked(weight(req.Command, len(req.Data)))
	c.mu.Unlock()
	if from == fromReader && !streams && req.cmd.score.Load() > 0 {
		return c.runInline(req)
	}
	if from != fromStart {
		c.spawned = true
	}
	go c.serve(req)
	return true
}

// dropWaiting answers a cancelled request whose handler does not run yet.
func (c *Conn) dropWaiting(req *Request) {
	c.mu.Lock()
	for i, waits := range c.waiting {
		if waits == req {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			w := weight(req.Command, len(req.Data))
			c.waitingSize -= w
			c.tookLocked(w)
			c.running++ // as if it ran
			c.mu.Unlock()
			c.finish(req, nil, Errorf(CodeCancelled, "the request was given up before its handler began"))
			return
		}
	}
	c.mu.Unlock()
}

// serve runs the handler of a request and sends its answer.
func (c *Conn) serve(req *Request) {
	inline := req.inline != 0
	began := time.Now()
	if !req.ctx.deadline.IsZero() {
		left := time.Until(req.ctx.deadline)
		if left <= 0 {
			c.finish(req, nil, Errorf(CodeDeadline, "the deadline had passed before the handler began"))
			return
		}
		req.ctx.mu.Lock()
		if req.ctx.err == nil {
			req.ctx.timer = time.AfterFunc(left, func() { req.ctx.cancel(context.DeadlineExceeded) })
		}
		req.ctx.mu.Unlock()
	}
	returned := false
	var reply []byte
	var err error
	defer func() {
		if returned {
			return
		}
		if cause := recover(); cause != nil {
			c.logf("panic in the handler of %q: %v\n%s", req.Command, cause, debug.Stack())
			c.finish(req, nil, Errorf(CodePanicked, "the handler panicked: %v", cause))
			return
		}
		// runtime.Goexit, which ends this goroutine.
		c.finish(req, nil, Errorf(CodeUnanswered, "the handler ended without an answer"))
		if inline {
			c.unblock()
			c.w.flush()
		}
	}()
	reply, err = c.handler.Serve(&req.ctx, req)
	if err != nil {
		err = plainError(err) // here, since the methods of the error are the user's as well
	}
	returned = true
	req.cmd.took(time.Since(began))
	if !req.oneWay {
		// The caller may not read: replies wait with their handlers, whose number has a limit.
		_ = c.w.waitRoom(context.Background(), c.unblock)
	}
	c.finish(req, reply, err)
}

// finish sends the answer of a request, and starts the next one that waits.
func (c *Conn) finish(req *Request, reply []byte, err error) {
	req.ctx.cancel(context.Canceled)
	streams := req.parts != nil || req.replies != nil
	if streams {
		req.finishStream(err)
	}
	if req.progress != nil {
		req.progress.finish()
	}
	if err == nil && !req.oneWay {
		err = c.tooLarge(len(reply))
	}
	switch {
	case req.oneWay:
		if err != nil {
			c.logf("%s: the one-way %.100q failed: %v", c.peer, req.Command, err)
		}
	case err != nil:
		c.refuse(req.id, request, err, req.Command)
	default:
		cmd := req.Command
		c.respond(req.id, cmd, reply)
	}
	c.mu.Lock()
	if req.listed && c.requests[req.id] == req {
		delete(c.requests, req.id)
	}
	delete(c.unlisted, &req.ctx)
	if streams {
		c.inStreams--
	}
	c.running--
	many := c.running > 0
	if req.turn != nil {
		*req.turn = false
	}
	next := c.nextWaiting()
	if c.running == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
	if next != nil {
		select {
		case c.resume <- struct{}{}:
		default:
		}
		go c.serve(next)
	}
	if req.inline != 0 && c.inline.Load() == req.inline {
		return // the goroutine that reads writes when it has nothing left to handle
	}
	switch {
	case len(reply) > copyLimit:
		c.w.flushAs(brief)
	case many:
		c.w.flushSoon()
	default:
		c.w.flush()
	}
}

// nextWaiting takes the first request out of those that wait whose turn it is.
func (c *Conn) nextWaiting() *Request {
	if c.running >= c.options.MaxHandlers {
		return nil
	}
	for i, req := range c.waiting {
		if busy := c.sequences[req.Command]; busy != nil {
			if *busy {
				continue
			}
			*busy, req.turn = true, busy
		}
		if i == 0 {
			c.waiting[0] = nil
			c.waiting = c.waiting[1:]
		} else {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
		}
		w := weight(req.Command, len(req.Data))
		c.waitingSize -= w
		c.running++
		c.tookLocked(w)
		return req
	}
	return nil
}

// waitIdle waits until no handler runs; false at the time limit.
func (c *Conn) waitIdle(timeout <-chan time.Time) bool {
	for {
		c.mu.Lock()
		if c.running == 0 && len(c.waiting) == 0 {
			c.mu.Unlock()
			return true
		}
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle := c.idle
		c.mu.Unlock()
		select {
		case <-idle:
		case <-timeout:
			return false
		}
	}
}
