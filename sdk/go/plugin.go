package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Plugin is a plugin that runs. Its calls are those of Conn.
type Plugin struct {
	*Conn

	host    *Host
	cmd     *exec.Cmd // nil if it was attached
	stderr  *tail
	exited  chan struct{}
	waitErr error
	stop    sync.Mutex
}

// An ExitError is a plugin that ended with another status than 0.
type ExitError struct {
	Plugin string
	State  *os.ProcessState
	Stderr string
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("plugin %q ended: %v", e.Plugin, e.State)
	if e.Stderr != "" {
		text += "; its stderr ends with: " + e.Stderr
	}
	return text
}

// explain tells the status of a plugin whose connection has ended, if it has one soon.
func (p *Plugin) explain(cause error) error {
	var broken *BrokenStreamError
	isCut := errors.As(cause, &broken) && broken.Kind == "end" // half of an answer is there
	if p.cmd == nil || !(isCut || errors.Is(cause, io.EOF) || errors.Is(cause, syscall.EPIPE)) {
		return cause
	}
	select {
	case <-p.exited:
		return p.exitError()
	case <-time.After(300 * time.Millisecond):
		return cause
	}
}

func (p *Plugin) exitError() error {
	if p.cmd == nil || p.cmd.ProcessState == nil {
		return errors.New("it has ended")
	}
	return &ExitError{p.cmd.Path, p.cmd.ProcessState, p.stderr.String()}
}

// SetLogLevel sets the level of the plugin's log: "off" to "trace".
func (p *Plugin) SetLogLevel(level string) error {
	if p.features.Load()&featureLog == 0 {
		return &wrapped{ErrUnsupported, p.peer + " does not support log levels"}
	}
	p.w.put(Format(p.format.Load()), 0, oneWay, cmdLogLevel, []byte(level), true)
	p.w.flush()
	return nil
}

// Pid is the number of the plugin's process; 0 if it was attached.
func (p *Plugin) Pid() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Stop has the plugin finish what it works on, and ends it: it is told to stop, then its input ends,
// then it gets SIGTERM and SIGKILL. The end of ctx makes it SIGKILL at once. The error is an *ExitError
// if its exit status is not 0.
func (p *Plugin) Stop(ctx context.Context) error {
	p.stop.Lock()
	defer p.stop.Unlock()
	grace := p.host.Grace
	if grace <= 0 {
		grace = DefaultGrace
	}
	p.w.put(Format(p.format.Load()), 0, oneWay, cmdStop, nil, false)
	p.w.flush()
	ended := (<-chan struct{})(p.exited)
	if p.cmd == nil {
		ended = p.over
	}
	for _, step := range []struct {
		wait time.Duration
		then func()
	}{
		{grace, p.closeOutput},
		{time.Second, func() { p.signal(syscall.SIGTERM) }},
		{time.Second, func() { p.signal(syscall.SIGKILL) }},
	} {
		timer := time.NewTimer(step.wait)
		select {
		case <-ended:
			timer.Stop()
			return p.stopped()
		case <-ctx.Done():
			timer.Stop()
			_ = p.Kill()
			return fmt.Errorf("%s was killed, since it did not stop in time: %w", p.peer, ctx.Err())
		case <-timer.C:
			step.then()
		}
	}
	<-ended
	return p.stopped()
}

func (p *Plugin) stopped() error {
	p.ended(errors.New("it was stopped"))
	if p.cmd == nil || p.cmd.ProcessState.Success() {
		return nil
	}
	return p.exitError()
}

// Kill ends the plugin and what it has started in its process group, and waits for its end.
func (p *Plugin) Kill() error {
	p.signal(syscall.SIGKILL)
	if p.Conn != nil {
		p.ended(errors.New("it was killed"))
	}
	if p.cmd != nil {
		<-p.exited
	}
	return nil
}

// signal sends a signal to the process group of a plugin that has not ended.
func (p *Plugin) signal(signal syscall.Signal) {
	if p.cmd == nil {
		if p.Conn != nil {
			p.ended(errors.New("it does not stop"))
		}
		return
	}
	select {
	case <-p.exited:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, signal)
	}
}

// Exited is closed when the process of the plugin has ended.
func (p *Plugin) Exited() <-chan struct{} { return p.exited }
