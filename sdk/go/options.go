package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Defaults of the options.
const (
	DefaultWindow       = 4 << 20
	DefaultStreamWindow = 1 << 20
	DefaultMaxHandlers  = 1024
	DefaultMaxStreams   = 1024
)

// Options are the limits of a connection. The zero value of each means its default.
type Options struct {
	CommandLimit int // bytes of a cmd that are received
	BufferLimit  int // bytes of a buffer that are received
	Window       int // bytes of requests and one-ways that the other side may send before they are taken
	StreamWindow int // the same for one direction of one stream
	MaxHandlers  int // handlers at a time; what comes beyond waits
	MaxStreams   int // streams that the other side has open
	// InOrder are sequences of commands. The commands of a sequence are handled one at a time, in the
	// order in which they were sent; a handler must not wait for a later command of its sequence.
	InOrder [][]string
}

func (o Options) withDefaults() Options {
	for _, f := range []struct {
		value    *int
		default_ int
	}{
		{&o.CommandLimit, DefaultCommandLimit}, {&o.BufferLimit, DefaultBufferLimit}, {&o.Window, DefaultWindow},
		{&o.StreamWindow, DefaultStreamWindow}, {&o.MaxHandlers, DefaultMaxHandlers}, {&o.MaxStreams, DefaultMaxStreams},
	} {
		if *f.value == 0 {
			*f.value = f.default_
		}
	}
	return o
}

// checkContext refuses a nil context, which would end the program elsewhere.
func checkContext(ctx context.Context) error {
	if ctx == nil {
		return errors.New("the context is nil: pass that of the handler, or context.Background()")
	}
	return nil
}

// checkSettings says what is wrong with the settings that a guest and a host have.
func checkSettings(of string, o Options, services []*Service, times map[string]time.Duration) error {
	for name, value := range times {
		if value < 0 {
			return fmt.Errorf("%s.%s is %v, and must not be negative: leave it out for the default", of, name, value)
		}
	}
	for name, value := range map[string]int{
		"CommandLimit": o.CommandLimit, "BufferLimit": o.BufferLimit, "Window": o.Window, "StreamWindow": o.StreamWindow,
		"MaxHandlers": o.MaxHandlers, "MaxStreams": o.MaxStreams,
	} {
		if value < 0 {
			return fmt.Errorf("%s.Options.%s is %d, and must not be negative: leave it out for the default", of, name, value)
		}
	}
	sequences := map[string]bool{}
	for _, commands := range o.InOrder {
		for _, cmd := range commands {
			if sequences[cmd] {
				return fmt.Errorf("%s.Options.InOrder has the command %q twice", of, cmd)
			}
			sequences[cmd] = true
		}
	}
	names := map[string]bool{}
	for _, s := range services {
		switch {
		case s == nil:
			return fmt.Errorf("%s.Services has a nil service", of)
		case names[s.name]:
			return fmt.Errorf("%s.Services has the service %q twice", of, s.name)
		}
		names[s.name] = true
	}
	return nil
}

var logLevels = []string{"off", "error", "warn", "info", "debug", "trace"}

func isLogLevel(level string) bool {
	for _, known := range logLevels {
		if level == known {
			return true
		}
	}
	return false
}
