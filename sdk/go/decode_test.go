package pipeplug

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

type vectorFile struct {
	Format  *string
	Vectors []vector
}

type vector struct {
	Name      string
	Bytes     string
	Events    []map[string]map[string]any
	Error     *vectorError
	Limits    map[string]uint64
	Told      string
	Canonical *bool
}

type vectorError struct {
	Field  string
	Offset uint64
	Kind   string
}

// vectorsDir is where the test vectors of the wire are, in a checkout of the whole repository.
func vectorsDir() string {
	if dir := os.Getenv("PIPEPLUG_VECTORS"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "crates", "pipeplug-wire", "tests", "vectors")
}

func readVectors(t *testing.T, name string) (Format, []vector) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(vectorsDir(), name+".json"))
	if err != nil {
		t.Fatalf("the test vectors of the wire are needed, name their folder in PIPEPLUG_VECTORS: %v", err)
	}
	var file vectorFile
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	format := FormatAuto
	if file.Format != nil {
		format = map[string]Format{"standard": FormatStandard, "classic": FormatClassic}[*file.Format]
	}
	return format, file.Vectors
}

func vectorBytes(t *testing.T, v vector) []byte {
	t.Helper()
	stream, err := hex.DecodeString(strings.ReplaceAll(v.Bytes, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// decodeAll reads a stream that comes in the given pieces, as the connection does.
func decodeAll(format Format, limits map[string]uint64, pieces [][]byte) (events []map[string]map[string]any, told Format, err error) {
	d := &decoder{format: format, cmdLimit: DefaultCommandLimit, bufLimit: DefaultBufferLimit}
	if limit, ok := limits["command"]; ok {
		d.cmdLimit = limit
	}
	if limit, ok := limits["buffer"]; ok {
		d.bufLimit = limit
	}
	var left uint64
	var buffer []byte
	chunk := func() {
		if d.skip == "" {
			events = append(events, map[string]map[string]any{"chunk": {
				"thread_id": strconv.FormatUint(d.id, 10), "direction": float64(d.direction),
				"command": string(d.cmd), "buffer": hex.EncodeToString(buffer),
			}})
		}
		buffer = nil
	}
	for _, p := range pieces {
		for len(p) > 0 {
			if left > 0 {
				n := len(p)
				if uint64(n) > left {
					n = int(left)
				}
				if d.skip == "" {
					buffer = append(buffer, p[:n]...)
				}
				left -= uint64(n)
				p = p[n:]
				d.took(n, left)
				if left == 0 {
					chunk()
				}
				continue
			}
			n, done, err := d.header(p)
			if err != nil {
				return events, d.format, err
			}
			p = p[n:]
			if !done {
				continue
			}
			if d.skip != "" {
				skipped := map[string]any{
					"thread_id": strconv.FormatUint(d.id, 10), "direction": strconv.FormatUint(d.direction, 10),
					"reason": string(d.skip), "command_len": strconv.FormatUint(d.cmdLen, 10), "buffer_len": strconv.FormatUint(d.bufLen, 10),
				}
				switch d.skip {
				case skipCommand:
					skipped["limit"] = strconv.FormatUint(d.cmdLimit, 10)
				case skipBuffer:
					skipped["limit"] = strconv.FormatUint(d.bufLimit, 10)
				}
				if isReserved(string(d.cmd)) {
					skipped["reserved"] = true
				}
				events = append(events, map[string]map[string]any{"skipped": skipped})
			}
			if left = d.bufLen; left == 0 {
				chunk()
			}
		}
	}
	return events, d.format, d.end()
}

func TestVectorsDecode(t *testing.T) {
	for _, name := range []string{"standard", "classic", "detect"} {
		format, vectors := readVectors(t, name)
		if len(vectors) < 20 {
			t.Fatalf("%s.json has %d vectors only", name, len(vectors))
		}
		for _, v := range vectors {
			stream := vectorBytes(t, v)
			cuts := [][][]byte{{stream}}
			var single [][]byte
			for i := range stream {
				single = append(single, stream[i:i+1])
				cuts = append(cuts, [][]byte{stream[:i], stream[i:]})
			}
			cuts = append(cuts, single)
			for i, pieces := range cuts {
				events, told, err := decodeAll(format, v.Limits, pieces)
				at := fmt.Sprintf("%s.json: %q in cut %d", name, v.Name, i)
				if len(events) != 0 || len(v.Events) != 0 {
					if !reflect.DeepEqual(events, normal(v.Events)) {
						t.Fatalf("%s: events %v, want %v", at, events, v.Events)
					}
				}
				var broken *BrokenStreamError
				switch {
				case v.Error == nil && err != nil:
					t.Fatalf("%s: %v", at, err)
				case v.Error != nil && !errors.As(err, &broken):
					t.Fatalf("%s: error %v, want %v", at, err, v.Error)
				case v.Error != nil && (vectorError{broken.Field, broken.Offset, broken.Kind} != *v.Error):
					t.Fatalf("%s: error %+v, want %+v", at, *broken, *v.Error)
				}
				if format == FormatAuto && v.Told != "" && told.String() != v.Told {
					t.Fatalf("%s: told %v, want %s", at, told, v.Told)
				}
			}
		}
	}
}

// normal writes the buffers without the spaces.
func normal(events []map[string]map[string]any) []map[string]map[string]any {
	for _, event := range events {
		if chunk := event["chunk"]; chunk != nil {
			chunk["buffer"] = strings.ReplaceAll(chunk["buffer"].(string), " ", "")
		}
	}
	return events
}

func TestVectorsEncode(t *testing.T) {
	for _, name := range []string{"standard", "classic"} {
		format, vectors := readVectors(t, name)
		encoded := 0
		for _, v := range vectors {
			if v.Error != nil || (v.Canonical != nil && !*v.Canonical) {
				continue
			}
			var out []byte
			whole := true
			for _, event := range v.Events {
				chunk := event["chunk"]
				if chunk == nil {
					whole = false
					break
				}
				id, _ := strconv.ParseUint(chunk["thread_id"].(string), 10, 64)
				buffer, _ := hex.DecodeString(strings.ReplaceAll(chunk["buffer"].(string), " ", ""))
				out = appendHeader(out, format, id, byte(chunk["direction"].(float64)), chunk["command"].(string), len(buffer))
				out = append(out, buffer...)
			}
			if !whole {
				continue
			}
			encoded++
			if want := vectorBytes(t, v); !bytes.Equal(out, want) {
				t.Errorf("%s.json: %q: wrote %x, want %x", name, v.Name, out, want)
			}
		}
		if encoded < 10 {
			t.Errorf("%s.json: only %d vectors were encoded", name, encoded)
		}
	}
}

// Any stream gives the same in one piece and byte by byte.
func FuzzDecoder(f *testing.F) {
	for _, name := range []string{"standard", "classic", "detect"} {
		text, err := os.ReadFile(filepath.Join(vectorsDir(), name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		var file vectorFile
		if err := json.Unmarshal(text, &file); err != nil {
			f.Fatal(err)
		}
		for _, v := range file.Vectors {
			if stream, err := hex.DecodeString(strings.ReplaceAll(v.Bytes, " ", "")); err == nil {
				f.Add(stream)
			}
		}
	}
	limits := map[string]uint64{"command": 30, "buffer": 50}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var single [][]byte
		for i := range stream {
			single = append(single, stream[i:i+1])
		}
		for _, format := range []Format{FormatAuto, FormatStandard, FormatClassic} {
			events, told, err := decodeAll(format, limits, [][]byte{stream})
			again, toldAgain, errAgain := decodeAll(format, limits, single)
			if !reflect.DeepEqual(events, again) || told != toldAgain || fmt.Sprint(err) != fmt.Sprint(errAgain) {
				t.Errorf("%v: %v %v %v, byte by byte %v %v %v", format, events, told, err, again, toldAgain, errAgain)
			}
		}
	})
}
