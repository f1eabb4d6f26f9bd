package pipeplug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultStartTimeout is how long a plugin may take to answer for the first time.
const DefaultStartTimeout = 10 * time.Second

// Host starts plugins. Its zero value is one with the defaults.
type Host struct {
	// Handler answers what the plugin asks. Default: every command is unknown.
	Handler Handler
	// Services are what the plugin calls by methods.
	Services []*Service
	// Format of the chunks. Default: FormatStandard. FormatClassic is for plugins of the original Go
	// package.
	Format Format
	// Stdio has the plugin use its standard input and output, not the descriptors 3 and 4.
	Stdio bool
	// Config is the configuration of the plugin, anything that package json encodes. Nil is none.
	Config any
	// InterfaceVersions are the versions of the application's interface that the host speaks.
	InterfaceVersions []uint32
	// LogLevel is the level of the plugin's log at the start: "off" to "trace".
	LogLevel string
	// Metadata is what the host says of itself.
	Metadata map[string]string
	// Env and Dir are those of exec.Cmd.
	Env []string
	Dir string
	// Stderr gets what the plugin writes to its standard error, in the writes of a goroutine of each
	// plugin. A plugin waits while Write does. Default: os.Stderr.
	Stderr io.Writer
	// StartTimeout is how long the plugin may take to answer for the first time. Default:
	// DefaultStartTimeout.
	StartTimeout time.Duration
	// Grace is how long a stop waits for the plugin to end by itself. Default: DefaultGrace.
	Grace time.Duration
	// Options are the limits of the connection.
	Options Options
}

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

// Start starts a plugin with a zero Host.
func Start(ctx context.Context, path string, args ...string) (*Plugin, error) {
	return new(Host).Start(ctx, path, args...)
}

// A StartError says why a plugin did not start.
type StartError struct {
	Plugin string // its path
	Stderr string // the end of what it has written to standard error
	Err    error
}

func (e *StartError) Error() string {
	text := fmt.Sprintf("plugin %q did not start: %v", e.Plugin, e.Err)
	var exit *ExitError // has it as well
	if e.Stderr != "" && !errors.As(e.Err, &exit) {
		text += "; its stderr ends with: " + e.Stderr
	}
	return text
}

func (e *StartError) Unwrap() error { return e.Err }

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

// Start starts the program at path, with its own arguments, and waits until it has answered. ctx is
// for the start only. Stop the plugin at the end.
func (h *Host) Start(ctx context.Context, path string, args ...string) (*Plugin, error) {
	fail := func(err error) error { return &StartError{Plugin: path, Err: err} }
	toPlugin, out, err := os.Pipe()
	if err != nil {
		return nil, fail(err)
	}
	defer toPlugin.Close()
	in, fromPlugin, err := os.Pipe()
	if err != nil {
		_ = out.Close()
		return nil, fail(err)
	}
	defer fromPlugin.Close()
	errors_, stderr, err := os.Pipe()
	if err != nil {
		_ = out.Close()
		_ = in.Close()
		return nil, fail(err)
	}
	defer stderr.Close()

	p := &Plugin{host: h, stderr: &tail{}, exited: make(chan struct{})}
	if h.Stdio {
		// Two numbers would be taken for descriptors, and a guest of the Go package has to be told.
		if h.Format == FormatClassic || (len(args) >= 2 && isDescriptor(args[0]) && isDescriptor(args[1])) {
			args = append([]string{"0", "1"}, args...)
		}
	} else {
		args = append([]string{"3", "4"}, args...)
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = h.Env, h.Dir, stderr
	// A group of its own: Ctrl-C reaches the host alone, which stops the plugin.
	p.cmd.SysProcAttr = pluginAttributes()
	if h.Stdio {
		p.cmd.Stdin, p.cmd.Stdout = toPlugin, fromPlugin
	} else {
		p.cmd.ExtraFiles = []*os.File{toPlugin, fromPlugin}
	}
	err = p.cmd.Start()
	if err != nil {
		for _, f := range []*os.File{in, out, errors_} {
			_ = f.Close()
		}
		return nil, fail(err)
	}
	to := h.Stderr
	if to == nil {
		to = os.Stderr
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		defer errors_.Close()
		_, _ = io.Copy(io.MultiWriter(p.stderr, &careless{to}), errors_)
	}()
	go func() {
		p.waitErr = p.cmd.Wait()
		select { // a grandchild may keep stderr open
		case <-copied:
		case <-time.After(100 * time.Millisecond):
		}
		close(p.exited)
	}()
	if err := p.meet(ctx, path, in, out); err != nil {
		return nil, err
	}
	return p, nil
}

// Attach connects to a plugin that waits at a socket: one that was started with the arguments
// --pipeplug-listen and the path. Stop ends it; its exit status is not known.
func (h *Host) Attach(ctx context.Context, socket string) (*Plugin, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, &StartError{Plugin: socket, Err: err}
	}
	in, err := conn.(*net.UnixConn).File()
	_ = conn.Close()
	if err != nil {
		return nil, &StartError{Plugin: socket, Err: err}
	}
	copied, err := syscall.Dup(int(in.Fd()))
	if err != nil {
		return nil, &StartError{Plugin: socket, Err: err}
	}
	syscall.CloseOnExec(copied)
	p := &Plugin{host: h, stderr: &tail{}, exited: make(chan struct{})}
	if err := p.meet(ctx, socket, in, os.NewFile(uintptr(copied), "plugin")); err != nil {
		return nil, err
	}
	return p, nil
}

// meet begins the conversation with a plugin that was started.
func (p *Plugin) meet(ctx context.Context, path string, in, out *os.File) error {
	h := p.host
	format := h.Format
	if format == FormatAuto {
		format = FormatStandard
	}
	_ = out.Fd() // before: it sets the descriptor to blocking
	c, err := newConn(fmt.Sprintf("plugin %q", filepath.Base(path)), format, h.Options, in, out, false)
	if err != nil {
		_ = in.Close()
		_ = out.Close()
		_ = p.Kill()
		return &StartError{Plugin: path, Err: err}
	}
	_ = syscall.SetNonblock(c.w.fd, true)
	p.Conn = c
	c.services = h.Services
	c.handler = routeServices(h.Services, h.Handler)
	c.explain = p.explain
	c.onEnd = func(error) {
		c.closeInput()
		c.closeOutput()
	}
	if p.cmd != nil {
		go func() {
			<-p.exited
			select { // what it has written is read to the end, unless another process holds the pipe
			case <-c.over:
			case <-time.After(200 * time.Millisecond):
				c.ended(p.exitError())
			}
		}()
	}
	fail := func(err error) error {
		c.ended(err)
		_ = p.Kill()
		return &StartError{Plugin: path, Stderr: p.stderr.String(), Err: err}
	}
	offer := c.offer(ownFeatures, h.InterfaceVersions)
	for key, value := range h.Metadata {
		offer[key] = value
	}
	if h.LogLevel != "" {
		offer[keyLogLevel] = h.LogLevel
	}
	text, err := json.Marshal(offer)
	if err == nil && h.Config != nil {
		text, err = appendConfig(text, h.Config)
	}
	if err != nil {
		return fail(err)
	}
	c.accepts.Store(ownFeatures)
	c.start()

	timeout := h.StartTimeout
	if timeout <= 0 {
		timeout = DefaultStartTimeout
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	call := &Pending{done: make(chan struct{}), shared: true}
	if err := c.beginInternal(ctx, call, cmdMetadata, text, &callOptions{}); err != nil {
		return fail(err)
	}
	reply, err := call.Wait()
	var refused *Error
	switch {
	case errors.As(err, &refused):
		reply = []byte("{}")
	case errors.Is(err, context.DeadlineExceeded) && whyOver(caller) == nil:
		hint := "FormatClassic"
		if format == FormatClassic {
			hint = "FormatStandard"
		}
		return fail(fmt.Errorf("no answer within %v: if it speaks the other format set Host.Format to %s, if it uses stdin and stdout set Host.Stdio: %w", timeout, hint, err))
	case err != nil:
		return fail(err)
	}
	metadata, ok := parseMetadata(reply)
	if !ok {
		return fail(fmt.Errorf("its metadata is no JSON object: %.100q", reply))
	}
	c.meet(metadata)
	if err := c.agree(h.InterfaceVersions, metadata); err != nil {
		return fail(err)
	}
	if h.Config != nil && featuresOf(metadata)&featureConfig == 0 {
		return fail(fmt.Errorf("it takes no configuration, and there is one for it: %w", ErrUnsupported))
	}
	c.mu.Lock()
	c.flows = c.features.Load()&featureFlow != 0
	c.mu.Unlock()
	return nil
}

// appendConfig puts the configuration at the end of an object.
func appendConfig(object []byte, config any) ([]byte, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("the configuration is %d bytes long, and the limit is %d", len(text), maxConfig)
	}
	quoted, err := json.Marshal(string(text))
	if err != nil {
		return nil, err
	}
	object = append(object[:len(object)-1], `,"`+keyConfig+`":`...)
	return append(append(object, quoted...), '}'), nil
}

// explain tells the status of a plugin whose connection has ended, if it has one soon.
func (p *Plugin) explain(cause error) error {
	if p.cmd == nil || !(errors.Is(cause, io.EOF) || errors.Is(cause, syscall.EPIPE)) {
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

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2*tailSize {
		t.text = append(t.text[:0], t.text[len(t.text)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := t.text
	if len(text) > tailSize {
		text = text[len(text)-tailSize:]
	}
	return strings.TrimSpace(string(text))
}

// careless is a writer whose errors do not keep a plugin from writing.
type careless struct{ to io.Writer }

func (w *careless) Write(p []byte) (int, error) {
	_, _ = w.to.Write(p)
	return len(p), nil
}
