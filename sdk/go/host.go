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
	// Stderr gets what the plugin writes to its standard error, and to its standard output if that is
	// not the connection, in the writes of a goroutine of each plugin. A plugin waits while Write does.
	// Default: os.Stderr.
	Stderr io.Writer
	// StartTimeout is how long the plugin may take to answer for the first time. Default:
	// DefaultStartTimeout.
	StartTimeout time.Duration
	// Grace is how long a stop waits for the plugin to end by itself. Default: DefaultGrace.
	Grace time.Duration
	// Options are the limits of the connection.
	Options Options
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
		p.cmd.Stdout, p.cmd.ExtraFiles = stderr, []*os.File{toPlugin, fromPlugin}
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
