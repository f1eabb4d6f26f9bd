package pipeplug

import (
	"strconv"
	"strings"
)

// Format is one of the two formats in which chunks are written.
type Format int

// The formats. A guest with FormatAuto speaks the format of the host's first chunk; a host with
// FormatAuto speaks FormatStandard.
const (
	FormatAuto     Format = iota
	FormatStandard        // for everything new
	FormatClassic         // for peers of the original Go package
)

// String names the format as the tools do.
func (f Format) String() string {
	switch f {
	case FormatStandard:
		return "standard"
	case FormatClassic:
		return "classic"
	}
	return "auto"
}

// Directions of chunks. All others are reserved.
const (
	oneWay   = 1
	request  = 2
	response = 3
)

// Commands of the protocol.
const (
	cmdMetadata   = "GetMetadata"
	cmdServices   = "GetServices"
	cmdError      = "cmd.error"
	cmdFailure    = "cmd.failure"
	cmdPing       = "cmd.ping"
	cmdStop       = "cmd.stop"
	cmdCancel     = "cmd.cancel"
	cmdContext    = "cmd.context"
	cmdCredit     = "cmd.credit"
	cmdLogLevel   = "cmd.log_level"
	cmdPart       = "cmd.part"
	cmdEnd        = "cmd.end"
	cmdEnough     = "cmd.enough"
	cmdPartCredit = "cmd.part.credit"
	cmdProgress   = "cmd.progress"
)

// Limits of what is received, unless the options say otherwise.
const (
	DefaultCommandLimit = 64 << 10
	DefaultBufferLimit  = 256 << 20
)

const reservedPrefix = "cmd."

func isReserved(cmd string) bool { return strings.HasPrefix(cmd, reservedPrefix) }

// weight of a chunk in flow control.
func weight(cmd string, size int) uint64 { return uint64(64 + len(cmd) + size) }

// appendHeader appends what is written before a buffer of size bytes.
func appendHeader(to []byte, format Format, id uint64, direction byte, cmd string, size int) []byte {
	if format == FormatClassic {
		if id != 0 {
			to = strconv.AppendUint(to, id, 10)
		}
		to = append(to, 0, '0'+direction, 0)
		to = append(to, cmd...)
		to = append(to, ' ')
		if size != 0 {
			to = strconv.AppendUint(to, uint64(size), 10)
		}
		return append(to, 0)
	}
	to = strconv.AppendUint(to, id, 10)
	to = append(to, 0, '0'+direction, 0)
	to = strconv.AppendUint(to, uint64(len(cmd)), 10)
	to = append(to, 0)
	to = append(to, cmd...)
	to = append(to, 0)
	to = strconv.AppendUint(to, uint64(size), 10)
	return append(to, 0)
}

// parseNumber reads a number of the protocol's grammar.
func parseNumber(text string) (uint64, bool) {
	if text == "" || len(text) > 20 || (text[0] == '0' && len(text) > 1) {
		return 0, false
	}
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}
