package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Plugin is a plugin that runs. Its calls are those of Conn.
type Plugin struct {
	*Conn

	host    *Host
	cmd     *exec.Cmd // nil if it was attached
	stderr  *lastLines
	began   time.Time
	ran     time.Duration // once it has ended
	exited  chan struct{}
	endedBy atomic.Pointer[string] // what this host has done to end it
	stop    sync.Mutex
}

// explain tells the status of a plugin whose connection has ended, if it has one soon.
func (p *Plugin) explain(cause error) error {
	var broken *BrokenStreamError
	isCut := errors.As(cause, &broken) && broken.Kind == "end" // half of an answer is there
	if !isCut && !errors.Is(cause, io.EOF) && !errors.Is(cause, syscall.EPIPE) {
		return cause
	}
	if p.cmd != nil {
		select {
		case <-p.exited:
			return p.whyExited()
		case <-time.After(time.Second):
		}
	}
	if by := p.endedBy.Load(); by != nil {
		return errors.New(*by)
	}
	return cause
}

// whyExited is the reason for which a process has ended: this host, or itself.
func (p *Plugin) whyExited() error {
	if by := p.endedBy.Load(); by != nil && (*by == wasKilled || p.cmd.ProcessState.Success()) {
		return errors.New(*by)
	}
	return p.exitError()
}

func (p *Plugin) exitError() error {
	lines, crash := p.stderr.get()
	return &ExitError{
		Plugin: filepath.Base(p.cmd.Path), State: p.cmd.ProcessState, Stderr: strings.Join(lines, "\n"), Ran: p.ran, crash: crash,
	}
}

var wasStopped, wasKilled = "its host has stopped it", "its host has killed it"

// SetLogLevel sets the level of the plugin's log: "off" to "trace".
func (p *Plugin) SetLogLevel(level string) error {
	if !isLogLevel(level) {
		return fmt.Errorf("there is no log level %q: it is one of %s", level, strings.Join(logLevels, ", "))
	}
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
// then it gets SIGTERM and SIGKILL. The end of ctx makes it SIGKILL at once; nil is no limit. The error
// is an *ExitError if its exit status is not 0, also if it had ended before. Stop may be called again,
// and by several goroutines.
func (p *Plugin) Stop(ctx context.Context) error {
	if ctx == nil {
		ctx = context.Background()
	}
	p.stop.Lock()
	defer p.stop.Unlock()
	grace := p.host.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	p.endedBy.CompareAndSwap(nil, &wasStopped)
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
			select {
			case <-ended:
				return p.stopped()
			default:
			}
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
	p.ended(errors.New(wasStopped))
	if p.cmd == nil || p.cmd.ProcessState.Success() {
		return nil
	}
	return p.exitError()
}

// Kill ends the plugin and what it has started in its process group, and waits for its end.
func (p *Plugin) Kill() error {
	p.endedBy.Store(&wasKilled)
	p.signal(syscall.SIGKILL)
	if p.Conn != nil {
		p.ended(errors.New(wasKilled))
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

// Exited is closed when the process of the plugin has ended; never for one that was attached.
func (p *Plugin) Exited() <-chan struct{} { return p.exited }
