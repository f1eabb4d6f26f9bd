// The plugin.
package main

import (
	plugin "github.com/hashicorp/go-plugin"

	"../shared"
)

type knownWords struct{}

func (knownWords) Add(a, b int64) (int64, error) {
	return a + b, nil
}

func (knownWords) Suggest(word string, most uint32) ([]string, error) {
	var words []string
	for _, known := range []string{"ten", "the", "tree"} {
		if len(known) == len(word) && uint32(len(words)) < most {
			words = append(words, known)
		}
	}
	return words, nil
}

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: shared.Handshake,
		Plugins: map[string]plugin.Plugin{
			"words": shared.WordsPlugin{Words: knownWords{}},
		},
	})
}
