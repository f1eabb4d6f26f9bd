package pipeplug

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// windowOfStreams is how much of a stream the peer takes before it gives credit.
func (c *Conn) windowOfStreams() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streamWindow == 0 {
		return 1
	}
	return c.streamWindow
}

// streamChunk handles a chunk of a stream, or a report of progress. It is false for other chunks.
func (c *Conn) streamChunk(ch chunk) bool {
	name := ch.cmd.name
	switch name {
	case cmdPart, cmdEnough, cmdPartCredit:
	case cmdEnd:
		if ch.direction == response {
			return false
		}
	case cmdProgress:
		if ch.direction == response {
			c.progressed(ch)
		}
		return true
	default:
		return false
	}
	in, out := c.streamOf(ch.id, ch.direction == response)
	c.spawned = true
	switch name {
	case cmdPart:
		if in != nil && !in.push(ch.buffer) {
			c.w.put(Format(c.format.Load()), in.id, in.answer(), cmdEnough, []byte("more parts than the window allows"), true)
		}
	case cmdEnd:
		if in == nil {
			break
		}
		if len(ch.buffer) == 0 {
			in.end(nil)
			break
		}
		in.end(&wrapped{ErrAborted, "the sender has ended the stream early: " + validText(ch.buffer)})
	case cmdEnough:
		if out != nil {
			reason := "the receiver wants no more parts"
			if len(ch.buffer) > 0 {
				reason += ": " + validText(ch.buffer)
			}
			out.fail(&wrapped{ErrEnough, reason})
		}
	case cmdPartCredit:
		if out != nil {
			n, ok := parseNumber(string(ch.buffer))
			out.credit(n, ok)
		}
	}
	return true
}

// streamOf finds the halves of a stream of this side's, or of the peer's.
func (c *Conn) streamOf(id uint64, own bool) (in *PartReader, out *PartWriter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !own {
		if req := c.requests[id]; req != nil {
			return req.parts, req.replies
		}
		return nil, nil
	}
	if p := c.calls[id]; p != nil && p.stream != nil {
		return p.stream.In, p.stream.Out
	}
	return nil, c.outStreams[id]
}

// partTooLarge ends a stream one of whose parts was discarded.
func (c *Conn) partTooLarge(id uint64, own bool, err error) {
	if in, _ := c.streamOf(id, own); in != nil {
		in.end(err)
		c.w.put(Format(c.format.Load()), in.id, in.answer(), cmdEnough, []byte(err.Error()), true)
	}
}

func validText(text []byte) string {
	if utf8.Valid(text) {
		return string(text)
	}
	return fmt.Sprintf("%q", text)
}

// endStream ends the stream of a request that was given up.
func (r *Request) endStream(err error) {
	if r.parts != nil {
		r.parts.end(err)
	}
	if r.replies != nil {
		r.replies.fail(err)
	}
}

// finishStream ends the stream of a request whose handler has returned.
func (r *Request) finishStream(err error) {
	if r.replies != nil {
		r.replies.fail(errors.New("the handler has returned"))
	}
	if r.parts == nil || r.cancelled.Load() {
		return
	}
	p := r.parts
	p.mu.Lock()
	unused, open := !p.used, !p.ended && !p.enough
	p.enough, p.queue = true, nil
	p.mu.Unlock()
	reason := ""
	switch {
	case unused && err == nil:
		reason = "the handler takes no parts"
	case unused || !open:
		if !open {
			return
		}
	}
	c := r.conn
	c.w.put(Format(c.format.Load()), r.id, response, cmdEnough, []byte(reason), true)
}
