package pipeplug

import (
	"encoding/json"
	"runtime/debug"
	"sync"
	"time"
)

// OnProgress has report called with the progress that the handler reports, one at a time. Reports
// come in quick succession only if the handler is done.
func OnProgress(report func(Progress)) CallOption {
	return func(o *callOptions) { o.progress = report }
}

// Progress is how far the work on a call is.
type Progress struct {
	Done    uint64  // in any unit
	Total   *uint64 // all there is, in the same unit; nil if that is not known
	Message string  // for people
}

// progressInterval is the least time between two reports.
const progressInterval = 50 * time.Millisecond

// progressSender sends the latest report, one in an interval.
type progressSender struct {
	req *Request

	mu    sync.Mutex
	next  *Progress // waits for its time
	timer *time.Timer
	last  time.Time
	over  bool
}

type progressJSON struct {
	Done    uint64  `json:"done"`
	Total   *uint64 `json:"total,omitempty"`
	Message string  `json:"message,omitempty"`
}

func (s *progressSender) report(done, total uint64, message string) {
	p := &Progress{Done: done, Message: message}
	if total != 0 {
		p.Total = &total
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if wait := progressInterval - time.Since(s.last); wait > 0 {
		if s.next = p; s.timer == nil {
			s.timer = time.AfterFunc(wait, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.timer = nil
				if !s.over && s.next != nil {
					s.send(s.next)
					s.req.conn.w.flush()
				}
			})
		}
		return
	}
	s.send(p)
	s.req.conn.unblock()
	s.req.conn.w.flush()
}

func (s *progressSender) send(p *Progress) {
	s.last, s.next = time.Now(), nil
	text, err := json.Marshal(progressJSON{p.Done, p.Total, p.Message})
	for n := len(p.Message); err == nil && len(text) > maxContext && n > 0; {
		n /= 2
		text, err = json.Marshal(progressJSON{p.Done, p.Total, cutText(p.Message, n)})
	}
	if err == nil {
		s.req.conn.respond(s.req.id, cmdProgress, text)
	}
}

// finish sends the last report, before the response.
func (s *progressSender) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.next != nil {
		s.send(s.next)
	}
}

// progressed hands a report to the call that it belongs to.
func (c *Conn) progressed(ch chunk) {
	c.mu.Lock()
	p := c.calls[ch.id]
	c.mu.Unlock()
	if p == nil || p.progress == nil {
		return
	}
	object, ok := parseObject(ch.buffer)
	done, good := parseNumber(string(object["done"]))
	report := Progress{Done: done}
	if text, has := object["total"]; has {
		total, isNumber := parseNumber(string(text))
		report.Total = &total
		good = good && isNumber
	}
	if text, has := object["message"]; has {
		good = good && text[0] == '"' && json.Unmarshal(text, &report.Message) == nil
	}
	if !ok || !good || len(ch.buffer) > maxContext {
		c.logf("%s: a report of progress is ignored: %.100q", c.peer, ch.buffer)
		return
	}
	p.report(report)
}

// report has the reports of a call told one at a time, the latest one if the user is slow. The
// goroutine that reads does not wait for the user.
func (p *Pending) report(report Progress) {
	p.reports.mu.Lock()
	defer p.reports.mu.Unlock()
	p.reports.latest = &report
	if p.reports.busy {
		return
	}
	p.reports.busy = true
	tell, reports := p.progress, p.reports
	p.conn.spawned = true
	c := p.conn // of the call, which may be over when the user returns
	go func() {
		reports.mu.Lock()
		defer func() {
			reports.busy = false
			if reports.idle != nil {
				close(reports.idle)
				reports.idle = nil
			}
			reports.mu.Unlock()
		}()
		for reports.latest != nil {
			latest := *reports.latest
			reports.latest = nil
			reports.mu.Unlock()
			func() {
				defer reports.mu.Lock() // also if the user ends this goroutine
				c.tell(tell, latest)
			}()
		}
	}()
}

// tell runs a call-back of the user's.
func (c *Conn) tell(report func(Progress), progress Progress) {
	defer c.survive("progress")
	report(progress)
}

// survive, deferred, has the log tell of a panic in a call-back: the connection goes on.
func (c *Conn) survive(what string) {
	if cause := recover(); cause != nil {
		c.logf("panic in the call-back for the %s: %v\n%s", what, cause, debug.Stack())
	}
}

// reports is how far telling the user of the progress is.
type reports struct {
	mu     sync.Mutex
	latest *Progress
	busy   bool
	idle   chan struct{}
}

// wait waits until the user was told of all reports.
func (r *reports) wait() {
	if r == nil {
		return
	}
	r.mu.Lock()
	if !r.busy {
		r.mu.Unlock()
		return
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	<-idle
}
