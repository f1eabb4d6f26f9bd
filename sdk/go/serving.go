package pipeplug

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// serving is a guest at work.
type serving struct {
	guest  *Guest
	conn   *Conn
	told   bool // the host has named the descriptors
	result chan error

	mu      sync.Mutex
	stop    bool
	state   startState
	started chan struct{} // closed when the start is over
	held    []*Request
	pending []*Request // GetMetadata, until the start is over
}

type startState int

const (
	startWaits startState = iota
	startRuns
	startOver
)

// features are those that the guest names.
func (g *Guest) features() uint32 {
	features := ownFeatures | featureConfig
	if g.LogLevel != nil {
		features |= featureLog
	}
	return features
}

// asked takes the host's GetMetadata.
func (s *serving) asked(req *Request) {
	c := s.conn
	host, _ := parseMetadata(req.Data)
	req.Data = nil
	if host == nil {
		host = map[string]string{}
	}
	s.mu.Lock()
	first := len(s.pending) == 0 && c.PeerMetadata() == nil
	s.mu.Unlock()
	if first {
		c.meet(host)
		c.features.Store(c.features.Load() &^ featureFlow)
		if level, ok := host[keyLogLevel]; ok {
			c.setLogLevel(level)
		}
		if err := c.agree(s.guest.InterfaceVersions, host); err != nil {
			// The host has the answer, and says the same of both.
			s.answer(req)
			c.w.waitWritten(time.After(s.grace()))
			s.end(err)
			return
		}
	}
	s.mu.Lock()
	switch s.state {
	case startWaits:
		s.pending, s.state = append(s.pending, req), startRuns
		s.mu.Unlock()
		go s.start()
	case startRuns:
		s.pending = append(s.pending, req)
		s.mu.Unlock()
	default:
		s.mu.Unlock()
		s.answer(req)
	}
}

// holds keeps requests until the start is over.
func (s *serving) holds(req *Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == startOver {
		return false
	}
	if len(s.held) == 0 && s.state == startWaits {
		// A host that asks for no metadata.
		time.AfterFunc(200*time.Millisecond, s.startNow)
	}
	s.held = append(s.held, req)
	// Streams and cancels find it in the table.
	if c := s.conn; !req.oneWay || req.parts != nil {
		c.mu.Lock()
		c.requests[req.id] = req
		req.listed = true
		c.mu.Unlock()
	}
	return true
}

// startNow starts without waiting for the host's metadata any longer.
func (s *serving) startNow() {
	s.mu.Lock()
	waits := s.state == startWaits
	if waits {
		s.state = startRuns
	}
	s.mu.Unlock()
	if waits {
		s.start()
	}
}

// over notes that the start is over.
func (s *serving) over() {
	s.state = startOver
	close(s.started)
}

// settle waits until what has come before the start was over is let in, as nothing more comes.
func (s *serving) settle(timeout <-chan time.Time) {
	s.mu.Lock()
	waits, idle := s.state == startWaits, len(s.held) == 0
	s.mu.Unlock()
	if waits && idle {
		return // the host has asked nothing
	}
	go s.startNow()
	select {
	case <-s.started:
	case <-timeout:
	}
}

// start runs the start call-back, and lets in what has waited.
func (s *serving) start() {
	c := s.conn
	if s.guest.Start != nil {
		if err := s.runStart(); err != nil {
			s.end(fmt.Errorf("the start failed: %w", err))
			return
		}
	}
	for {
		s.mu.Lock()
		pending, held := s.pending, s.held
		s.pending, s.held = nil, nil
		if len(pending) == 0 && len(held) == 0 {
			s.over()
			s.mu.Unlock()
			break
		}
		s.mu.Unlock()
		for _, req := range pending {
			s.answer(req)
		}
		for _, req := range held {
			c.admit(req, fromStart)
		}
	}
	c.w.flush()
}

// runStart runs the start call-back. It ends the plugin if that one does not return.
func (s *serving) runStart() (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if cause := recover(); cause != nil {
			s.conn.logf("panic in the start: %v\n%s", cause, debug.Stack())
			err = fmt.Errorf("it panicked: %v", cause)
			return
		}
		s.end(errors.New("the start failed: it ended without returning, by runtime.Goexit"))
	}()
	if err = s.guest.Start(s.conn.base, s.conn); err != nil {
		_, _ = plainError(err), errors.Is(err, ErrByHand) // its methods, while a panic is caught
	}
	returned = true
	return err
}

// answer sends the metadata.
func (s *serving) answer(req *Request) {
	c := s.conn
	object := map[string]string{}
	for key, value := range s.guest.Metadata {
		object[key] = value
	}
	for key, value := range c.offer(s.guest.features(), s.guest.InterfaceVersions) {
		object[key] = value
	}
	if _, ok := object[keyName]; !ok {
		object[keyName] = s.guest.name()
	}
	text, err := json.Marshal(object)
	if err != nil {
		c.refuse(req.id, request, err, cmdMetadata)
	} else {
		c.respond(req.id, cmdMetadata, text)
	}
	c.mu.Lock()
	c.flows = c.accepts.Load()&featureFlow != 0
	c.features.Store(c.accepts.Load())
	c.mu.Unlock()
	c.w.flush()
}

func (s *serving) grace() time.Duration {
	if s.guest.Grace > 0 {
		return s.guest.Grace
	}
	return DefaultGrace
}

// stopped is the host's cmd.stop: what it has asked is answered, then the plugin ends.
func (s *serving) stopped() {
	s.mu.Lock()
	again := s.stop
	s.stop = true
	s.mu.Unlock()
	if again {
		return
	}
	go s.finish()
}

func (s *serving) finish() {
	c := s.conn
	c.mu.Lock()
	if !c.isStopping {
		c.isStopping = true
		close(c.stopping)
	}
	c.mu.Unlock()
	timeout := time.After(s.grace())
	s.settle(timeout)
	if !c.waitIdle(timeout) {
		c.logf("stopped with handlers still at work after %v", s.grace())
	}
	c.w.waitWritten(timeout)
	s.end(nil)
}

// ended is the end of the connection.
func (s *serving) ended(cause error) {
	c := s.conn
	timeout := time.After(s.grace())
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if stop {
		return // finish is at work
	}
	s.settle(timeout)
	if !c.waitIdle(timeout) {
		c.logf("handlers were still at work %v after the host was gone", s.grace())
	}
	c.w.waitWritten(timeout)
	switch {
	case !s.told && !c.received.Load() && cause == errPeerClosed:
		s.end(s.guest.byHand())
	default:
		s.end(&wrapped{ErrHostGone, fmt.Sprintf("the host is gone: %v", cause)})
	}
}

// end gives the result, once.
func (s *serving) end(err error) {
	select {
	case s.result <- err:
	default:
		return
	}
	s.conn.closeOutput()
	s.conn.ended(errors.New("this side has closed the connection"))
	s.conn.closeInput()
}
