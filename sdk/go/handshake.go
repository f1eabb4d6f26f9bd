package pipeplug

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

const (
	keyProtocol     = "pipeplug.protocol"
	keyFeatures     = "pipeplug.features"
	keyWindow       = "pipeplug.window"
	keyStreamWindow = "pipeplug.stream_window"
	keyConfig       = "pipeplug.config"
	keyVersions     = "pipeplug.interface_versions"
	keyServices     = "pipeplug.services"
	keyLogLevel     = "pipeplug.log_level"
	keyName         = "pipeplug.name"
)

// maxConfig is the limit of a configuration.
const maxConfig = 1 << 20

// ownFeatures are those of this package that both sides have.
const ownFeatures = featureFlow | featureCancel | featureContext | featureProgress | featureStream | featureFailure

// offer is what this side says of itself in the GetMetadata exchange.
func (c *Conn) offer(features uint32, versions []uint32) map[string]string {
	var words []string
	for _, f := range featureNames {
		if features&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	offer := map[string]string{
		keyProtocol:     "1",
		keyFeatures:     strings.Join(words, " "),
		keyWindow:       strconv.Itoa(c.options.Window),
		keyStreamWindow: strconv.Itoa(c.options.StreamWindow),
	}
	if len(versions) > 0 {
		offer[keyVersions] = versionList(versions)
	}
	if len(c.services) > 0 {
		var names []string
		for _, s := range c.services {
			names = append(names, s.versionWord())
		}
		offer[keyServices] = strings.Join(names, " ")
	}
	return offer
}

func versionList(versions []uint32) string {
	sorted := append([]uint32(nil), versions...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	words := make([]string, len(sorted))
	for i, v := range sorted {
		words[i] = strconv.FormatUint(uint64(v), 10)
	}
	return strings.Join(words, " ")
}

// parseMetadata reads an object of the exchange; values that are no strings are kept as JSON.
func parseMetadata(buffer []byte) (map[string]string, bool) {
	object, ok := parseObject(buffer)
	if !ok {
		return nil, false
	}
	metadata := make(map[string]string, len(object))
	for key, value := range object {
		var text string
		if value[0] != '"' || json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		metadata[key] = text
	}
	return metadata, true
}

func featuresOf(metadata map[string]string) uint32 {
	var bits uint32
	for _, word := range strings.Fields(metadata[keyFeatures]) {
		for _, f := range featureNames {
			if f.name == word {
				bits |= f.bit
			}
		}
	}
	return bits
}

func windowOf(metadata map[string]string, key string, otherwise uint64) uint64 {
	n, ok := parseNumber(metadata[key])
	switch {
	case !ok:
		return otherwise
	case n == 0:
		return 1
	}
	return n
}

// meet takes what the peer has said of itself.
func (c *Conn) meet(metadata map[string]string) {
	features := featuresOf(metadata)
	if features&(featureContext|featureCancel) != featureContext|featureCancel {
		features &^= featureStream
	}
	if metadata[keyProtocol] != "" || features != 0 { // not the original Go package
		c.w.readsOnce.Store(false)
	}
	config, hasConfig := metadata[keyConfig]
	delete(metadata, keyConfig)
	c.mu.Lock()
	c.peerMetadata = metadata
	if hasConfig {
		c.config = []byte(config)
	}
	c.peerWindow = windowOf(metadata, keyWindow, DefaultWindow)
	c.streamWindow = windowOf(metadata, keyStreamWindow, DefaultStreamWindow)
	for _, r := range c.requests { // parts that wait for the window
		if r.replies != nil {
			r.replies.signal()
		}
	}
	c.mu.Unlock()
	c.features.Store(features)
	c.accepts.Store(features)
}

// ErrInterfaceVersions: the sides have no version of the interface in common.
var ErrInterfaceVersions = errors.New("no common version of the interface")

// agree chooses the version of the interface.
func (c *Conn) agree(own []uint32, peer map[string]string) error {
	list, named := peer[keyVersions]
	if !named || len(own) == 0 {
		return nil
	}
	var best, highestPeer, highestOwn uint64
	found := false
	for _, v := range own {
		if uint64(v) > highestOwn {
			highestOwn = uint64(v)
		}
	}
	for _, word := range strings.Split(list, " ") {
		n, ok := parseNumber(word)
		if !ok || n >= 1<<32 {
			continue
		}
		if n > highestPeer {
			highestPeer = n
		}
		for _, v := range own {
			if uint64(v) == n && (!found || n > best) {
				best, found = n, true
			}
		}
	}
	if !found {
		older := "this side is the older one"
		if highestPeer < highestOwn {
			older = c.peer + " is the older one"
		}
		return &wrapped{ErrInterfaceVersions, fmt.Sprintf("no common version of the interface: this side speaks %s, %s speaks %q; %s", versionList(own), c.peer, list, older)}
	}
	c.mu.Lock()
	c.version, c.hasVersion = uint32(best), true
	c.mu.Unlock()
	return nil
}

// ErrNoConfig: the host has no configuration for the plugin.
var ErrNoConfig = errors.New("the host has no configuration for this plugin")

// Config decodes the configuration that the host has for the plugin, JSON. It is ErrNoConfig if there
// is none.
func (c *Conn) Config(into any) error {
	c.mu.Lock()
	config := c.config
	c.mu.Unlock()
	if config == nil {
		return ErrNoConfig
	}
	if err := json.Unmarshal(config, into); err != nil {
		// The error of package json has no values in it, but may have names.
		return fmt.Errorf("the configuration from the host does not fit: %w", err)
	}
	return nil
}
