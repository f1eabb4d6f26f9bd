// Package shared is the interface, and what go-plugin needs to carry it over net/rpc.
package shared

import (
	"net/rpc"

	plugin "github.com/hashicorp/go-plugin"
)

// Words is the interface.
type Words interface {
	// Add returns the sum of two numbers.
	Add(a, b int64) (int64, error)
	// Suggest returns suggestions for a word, best first.
	Suggest(word string, most uint32) ([]string, error)
}

var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "WORDS_PLUGIN",
	MagicCookieValue: "words",
}

type AddArgs struct {
	A, B int64
}

type SuggestArgs struct {
	Word string
	Most uint32
}

type client struct {
	rpc *rpc.Client
}

func (c client) Add(a, b int64) (int64, error) {
	var sum int64
	err := c.rpc.Call("Plugin.Add", AddArgs{A: a, B: b}, &sum)
	return sum, err
}

func (c client) Suggest(word string, most uint32) ([]string, error) {
	var words []string
	err := c.rpc.Call("Plugin.Suggest", SuggestArgs{Word: word, Most: most}, &words)
	return words, err
}

type server struct {
	words Words
}

func (s server) Add(args AddArgs, sum *int64) (err error) {
	*sum, err = s.words.Add(args.A, args.B)
	return err
}

func (s server) Suggest(args SuggestArgs, words *[]string) (err error) {
	*words, err = s.words.Suggest(args.Word, args.Most)
	return err
}

type WordsPlugin struct {
	Words Words
}

func (p WordsPlugin) Server(*plugin.MuxBroker) (interface{}, error) {
	return server{words: p.Words}, nil
}

func (WordsPlugin) Client(_ *plugin.MuxBroker, c *rpc.Client) (interface{}, error) {
	return client{rpc: c}, nil
}
