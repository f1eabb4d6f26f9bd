package pipeplug

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// pause waits while the peer has sent more than may wait, if it does not know when to wait itself.
func (c *Conn) pause() {
	for {
		c.mu.Lock()
		full := c.features.Load()&featureFlow == 0 && c.waitingSize > uint64(c.options.Window) && len(c.calls) == 0 && c.err == nil
		c.mu.Unlock()
		if !full {
			return
		}
		select {
		case <-c.resume:
		case <-c.over:
			return
		case <-time.After(10 * time.Millisecond): // a call of this side may have begun
		}
	}
}

// respond queues a response. It goes out with the next flush.
func (c *Conn) respond(id uint64, cmd string, buffer []byte) {
	c.w.put(Format(c.format.Load()), id, response, cmd, buffer, true)
}

// refuse answers a request with an error, or tells of a one-way in the log.
func (c *Conn) refuse(id uint64, direction byte, err error, cmd string) {
	if direction != request {
		c.logf("%s: the one-way %.100q is dropped: %v", c.peer, cmd, err)
		return
	}
	cmd, buffer := errorReply(err, c.features.Load()&featureFailure != 0)
	c.respond(id, cmd, buffer)
}

// skipped sees the header of a chunk that is discarded.
func (c *Conn) skipped(d *decoder) {
	c.received.Store(true)
	c.next = nil
	if d.skip == skipDirection {
		return
	}
	what, size, limit := "buffer", d.bufLen, d.bufLimit
	if d.skip == skipCommand {
		what, size, limit = "cmd", d.cmdLen, d.cmdLimit
	}
	err := Errorf(CodeTooLarge, "a %s of %d bytes is over the limit of %d", what, size, limit)
	name := string(d.cmd)
	if d.direction == response {
		if name == cmdPart && d.skip == skipBuffer {
			c.partTooLarge(d.id, true, err)
			return
		}
		c.mu.Lock()
		p := c.calls[d.id]
		if p != nil && !isReserved(name) || p != nil && (name == cmdError || name == cmdFailure) {
			delete(c.calls, d.id)
			c.openCalls.Add(-1)
		} else {
			p = nil
		}
		c.mu.Unlock()
		if p != nil {
			c.replied = true
			p.answer(nil, fmt.Errorf("%s: the reply is lost: %w", p.cmd, err))
		}
		return
	}
	if d.direction == oneWay && name == cmdPart && d.skip == skipBuffer {
		c.partTooLarge(d.id, false, err)
		return
	}
	if !isReserved(name) {
		c.took(64 + d.cmdLen + d.bufLen)
	}
	c.refuse(d.id, byte(d.direction), err, cutText(name, 100))
}

// dispatch handles one chunk. It is false if another goroutine has the reading role now.
func (c *Conn) dispatch(ch chunk, from origin) bool {
	if !c.received.Load() {
		c.received.Store(true)
	}
	head := c.next
	c.next = nil
	if ch.direction == response {
		if ch.cmd.reserved && c.streamChunk(ch) {
			return true
		}
		c.answered(ch)
		return true
	}
	if ch.cmd.reserved {
		if ch.direction == request {
			if ch.cmd.name == cmdPing {
				c.respond(ch.id, cmdPing, nil)
			} else {
				c.refuse(ch.id, request, Errorf(CodeUnknownCommand, "%q is no request of the protocol", ch.cmd.name), ch.cmd.name)
			}
			return true
		}
		c.control(ch)
		return true
	}
	req := &Request{Command: ch.cmd.name, Data: ch.buffer, conn: c, id: ch.id, oneWay: ch.direction == oneWay, cmd: ch.cmd}
	req.ctx.req = req
	if head != nil && head.id == ch.id {
		head.apply(req)
	}
	if !req.oneWay {
		switch {
		case c.metadata == nil && req.Command == cmdMetadata && c.PeerMetadata() == nil:
			c.ended(errEcho)
			return false
		case c.metadata != nil && req.Command == cmdMetadata:
			c.took(weight(req.Command, len(req.Data)))
			c.metadata(req)
			return true
		case len(c.services) > 0 && req.Command == cmdServices:
			c.took(weight(req.Command, len(req.Data)))
			c.respond(req.id, cmdServices, describeServices(c.services))
			return true
		}
	}
	if c.hold != nil && c.hold(req) {
		return true
	}
	return c.admit(req, from)
}

// control handles a one-way of the protocol.
func (c *Conn) control(ch chunk) {
	switch ch.cmd.name {
	case cmdContext:
		c.next = parseContext(c, ch)
	case cmdStop:
		if c.stopped != nil {
			c.stopped()
		}
	case cmdCancel:
		c.mu.Lock()
		req := c.requests[ch.id]
		c.mu.Unlock()
		if req != nil && !req.oneWay {
			req.cancelled.Store(true)
			req.ctx.cancel(context.Canceled)
			req.endStream(context.Canceled)
			c.dropWaiting(req)
		}
	case cmdCredit:
		n, ok := parseNumber(string(ch.buffer))
		c.mu.Lock()
		if !ok || n > c.sent || n < c.credited {
			c.mu.Unlock()
			c.logf("%s: a credit of %.40q is ignored", c.peer, ch.buffer)
			return
		}
		c.credited = n
		if c.credit != nil {
			close(c.credit)
			c.credit = nil
			c.spawned = true
		}
		c.mu.Unlock()
	case cmdLogLevel:
		c.setLogLevel(string(ch.buffer))
	default:
		c.streamChunk(ch)
	}
}

func (c *Conn) setLogLevel(level string) {
	switch {
	case !isLogLevel(level):
		c.logf("%s: the log level %.40q is unknown", c.peer, level)
	case c.logLevel != nil:
		defer c.survive("log level")
		c.logLevel(level)
	}
}

// took counts the weight of what was taken, and tells the peer at the latest after half a window.
func (c *Conn) took(weight uint64) {
	c.mu.Lock()
	c.tookLocked(weight)
	c.mu.Unlock()
}

func (c *Conn) tookLocked(weight uint64) {
	c.taken += weight
	if c.features.Load()&featureFlow == 0 || c.taken-c.lastCredit < uint64(c.options.Window)/2 || c.taken == c.lastCredit {
		return
	}
	c.lastCredit = c.taken
	var number [20]byte
	c.w.put(Format(c.format.Load()), 0, oneWay, cmdCredit, strconv.AppendUint(number[:0], c.taken, 10), false)
}
