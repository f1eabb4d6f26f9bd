package pipeplug

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
		if *f.value <= 0 {
			*f.value = f.default_
		}
	}
	return o
}
