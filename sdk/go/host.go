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

// Start starts the program at path, with its own arguments, and waits until it has answered. A path
// without a slash is searched in PATH. ctx is for the start only. Stop the plugin at the end.
func (h *Host) Start(ctx context.Context, path string, args ...string) (*Plugin, error) {
	if err := h.check(ctx); err != nil {
		return nil, startProblem(path, err)
	}
	if path == "" {
		return nil, startProblem(path, errEmptyPath)
	}
	var files []*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			_ = f.Close()
		}
	}
	for i := 0; i < 3; i++ {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(files)
			return nil, &StartError{Plugin: path, Err: err, text: fmt.Sprintf("plugin %q %s", path, systemProblem(err))}
		}
		files = append(files, r, w)
	}
	toPlugin, out, in, fromPlugin, errors_, stderr := files[0], files[1], files[2], files[3], files[4], files[5]

	p := &Plugin{host: h, stderr: &lastLines{}, exited: make(chan struct{}), began: time.Now()}
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
	err := p.cmd.Start()
	closeAll([]*os.File{toPlugin, fromPlugin, stderr})
	if err != nil {
		closeAll([]*os.File{in, out, errors_})
		return nil, &StartError{Plugin: path, Err: err, text: spawnProblem(p.cmd, err)}
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
		_ = p.cmd.Wait() // the status is in ProcessState
		p.ran = time.Since(p.began)
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

func (h *Host) startTimeout() time.Duration {
	if h.StartTimeout == 0 {
		return DefaultStartTimeout
	}
	return h.StartTimeout
}

// check says why nothing can be started with these settings.
func (h *Host) check(ctx context.Context) error {
	if err := checkContext(ctx); err != nil {
		return err
	}
	if err := whyOver(ctx); err != nil {
		return fmt.Errorf("its context is over already: %w", err)
	}
	if err := checkSettings("Host", h.Options, h.Services, map[string]time.Duration{"StartTimeout": h.StartTimeout, "Grace": h.Grace}); err != nil {
		return err
	}
	if h.Format < FormatAuto || h.Format > FormatClassic {
		return fmt.Errorf("Host.Format is %d, and there is FormatStandard and FormatClassic", h.Format)
	}
	if h.LogLevel != "" && !isLogLevel(h.LogLevel) {
		return fmt.Errorf("Host.LogLevel is %q, and has to be one of %s", h.LogLevel, strings.Join(logLevels, ", "))
	}
	return nil
}

// Attach connects to a plugin that waits at a socket: one that was started with the arguments
// --pipeplug-listen and the path. Stop ends it; its exit status is not known.
func (h *Host) Attach(ctx context.Context, socket string) (*Plugin, error) {
	if err := h.check(ctx); err != nil {
		return nil, startProblem(socket, err)
	}
	if socket == "" {
		return nil, startProblem(socket, errEmptyPath)
	}
	fail := func(err error) error {
		text := fmt.Sprintf("no plugin waits at the socket %q: %v; start one with the arguments %s %[1]s", socket, err, listenArg)
		return &StartError{Plugin: socket, Err: err, text: text}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fail(err)
	}
	in, err := conn.(*net.UnixConn).File()
	_ = conn.Close()
	if err != nil {
		return nil, fail(err)
	}
	copied, err := syscall.Dup(int(in.Fd()))
	if err != nil {
		_ = in.Close()
		return nil, fail(err)
	}
	syscall.CloseOnExec(copied)
	p := &Plugin{host: h, stderr: &lastLines{}, exited: make(chan struct{}), began: time.Now()}
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
	c, err := newConn(fmt.Sprintf("plugin %q", filepath.Base(path)), format, h.Options, in, out, false)
	if err != nil {
		_ = in.Close()
		_ = out.Close()
		_ = p.Kill()
		return &StartError{Plugin: path, Err: err, text: fmt.Sprintf("plugin %q %s", path, systemProblem(err))}
	}
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
				c.ended(p.whyExited())
			}
		}()
	}
	fail := func(err error) error {
		c.ended(err)
		_ = p.Kill()
		return p.startFailed(path, err)
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

	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, h.startTimeout())
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
		return fail(errStartTimeout)
	case err != nil:
		return fail(err)
	}
	metadata, ok := parseMetadata(reply)
	if !ok {
		return fail(fmt.Errorf("its answer to GetMetadata is no JSON object: %.64q", reply))
	}
	c.meet(metadata)
	if err := c.agree(h.InterfaceVersions, metadata); err != nil {
		return fail(err)
	}
	if h.Config != nil && featuresOf(metadata)&featureConfig == 0 {
		return fail(&wrapped{ErrUnsupported, "it cannot take the configuration that its host has for it, since its answer to GetMetadata does not name the feature config; upgrade the plugin, or leave Host.Config out"})
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
