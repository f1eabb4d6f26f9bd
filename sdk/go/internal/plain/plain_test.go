package plain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"testing"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

// TestMain makes this program the plugin of its tests, if its argument says so.
func TestMain(m *testing.M) {
	if args := pipeplug.OwnArgs(); len(args) > 0 && args[0] == "mirror" {
		guest := pipeplug.Guest{Services: []*pipeplug.Service{NewPlainService(mirror{})}}
		guest.Main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mirror gives back what it gets.
type mirror struct{}

// failures are the errors of the methods, by the byte of a value or the label of a tree.
var failures = map[string]*ShapeError{
	"0": {Empty: true},
	"1": {Unknown: &ShapeErrorUnknown{Name: "<ü>"}},
	"2": {Wrapped: &Tree{Label: "x", Children: &[]Tree{}}},
}

func failure(key string) error {
	if own, ok := failures[key]; ok {
		own.Message = "it is " + key
		return fmt.Errorf("wrapped: %w", own)
	}
	return nil
}

func (mirror) Same(_ context.Context, args SameArguments) (Common, error) {
	return args.Value, failure(fmt.Sprint(args.Value.Byte))
}

func (mirror) Type(_ context.Context, args TypeArguments) ([]string, error) { return *args.Func, nil }

func (mirror) Nothing(context.Context) error { return nil }

func (mirror) Tell(context.Context, TellArguments) error { return nil }

func (mirror) Both(_ context.Context, args BothArguments, in *pipeplug.ItemReader[Tree], out *pipeplug.ItemWriter[Mood]) error {
	for {
		tree, err := in.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = out.Send(Mood(args.Prefix + tree.Label))
		}
		if err != nil {
			return err
		}
	}
}

func (mirror) Count(_ context.Context, in *pipeplug.ItemReader[string]) (uint64, error) {
	for n := uint64(0); ; n++ {
		if _, err := in.Recv(); err != nil {
			return n, nil
		}
	}
}

func (mirror) Words(_ context.Context, args WordsArguments, out *pipeplug.ItemWriter[string]) error {
	for i := uint32(0); i < *args.Most; i++ {
		if err := out.Send("word"); err != nil {
			return err
		}
	}
	return nil
}

func (mirror) Turn(_ context.Context, in *pipeplug.ItemReader[TurnItem], out *pipeplug.ItemWriter[TurnResultItem]) error {
	for {
		lines, err := in.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var trees []Tree // nil for no lines
		for _, line := range lines {
			if err := failure(line); err != nil {
				return err
			}
			trees = append(trees, Tree{Label: line})
		}
		if err := out.Send(trees); err != nil {
			return err
		}
	}
}

func (mirror) Fails(context.Context) error { return failure("1") }

// values are those that the tests of all languages have.
func values(t *testing.T) []json.RawMessage {
	var all struct{ Plain []json.RawMessage }
	text, err := os.ReadFile("../../../../crates/pipeplug/tests/cli/bindings/values.json")
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all.Plain
}

func start(t *testing.T) *PlainClient {
	plugin, err := new(pipeplug.Host).Start(context.Background(), os.Args[0], "mirror")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plugin.Kill() })
	client, err := NewPlainClient(plugin.Conn)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// withoutNull removes the fields that may be null, or be missing.
func withoutNull(value any) any {
	switch value := value.(type) {
	case []any:
		for _, it := range value {
			withoutNull(it)
		}
	case map[string]any:
		for key, it := range value {
			optional := key == "text" || key == "parent" || key == "tree" || key == "rows"
			if optional && it == nil {
				delete(value, key)
			}
			withoutNull(it)
		}
	}
	return value
}

func same(t *testing.T, want, got []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(want, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &b); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if !reflect.DeepEqual(withoutNull(a), withoutNull(b)) {
		t.Fatalf("want %s\ngot  %s", want, got)
	}
}

func TestValuesAreTheSameAfterAWayThroughClientAndServer(t *testing.T) {
	client := start(t)
	for _, want := range values(t) {
		var value Common
		if err := json.Unmarshal(want, &value); err != nil {
			t.Fatal(err)
		}
		back, err := client.Same(context.Background(), SameArguments{Value: value})
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(back)
		if err != nil {
			t.Fatal(err)
		}
		same(t, want, got)
	}
}

func TestValuesOfRustAreTheSameAfterAWayThroughGo(t *testing.T) {
	tool := os.Getenv("PIPEPLUG")
	if tool == "" {
		t.Skip("PIPEPLUG names no pipeplug to call the plugin; check.sh does")
	}
	for _, want := range values(t) {
		args := []string{"run", "--sandbox", "none", os.Args[0], "--call", "plain.same", `{"value":` + string(want) + "}", "--", "mirror"}
		got, err := exec.Command(tool, args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		same(t, want, got)
	}
}

func TestNilListsAreEmpty(t *testing.T) {
	client := start(t)
	value := Common{
		Mood:       MoodGood,
		Documented: DocumentedFirst,
		Byte:       9,
		Tagged:     []Tagged{{Gro: &TaggedGro{}}},
		Content:    Content{Number: &ContentNumber{}},
		OddOnes:    []Odd{{L: new([]Odd)}, {Rows: &[][]string{nil}}},
		Folder:     Folder{"a": nil},
		Nest:       Nest{nil},
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	back, err := client.Same(context.Background(), SameArguments{Value: value})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	same(t, text, got)
	var found struct {
		Bytes, Map, Nest, Tagged json.RawMessage
		Odd                      json.RawMessage `json:"odd_ones"`
		Folder                   map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	same(t, []byte("[]"), found.Bytes)
	same(t, []byte("{}"), found.Map)
	same(t, []byte("[]"), found.Folder["a"])
	same(t, []byte("[[]]"), found.Nest)
	same(t, []byte(`[{"Öl <&>":[]},{"Rows":[[]]}]`), found.Odd)
	same(t, []byte(`[{"type":"groß <&>","lines":[]}]`), found.Tagged)
}

func TestErrorsHaveTheirType(t *testing.T) {
	client, ctx := start(t), context.Background()
	of := func(key string, err error) {
		t.Helper()
		var own *ShapeError
		if !errors.As(err, &own) {
			t.Fatalf("%s: %T %v", key, err, err)
		}
		want, _ := json.Marshal(failures[key])
		got, _ := json.Marshal(own)
		same(t, want, got)
		if own.Message != "wrapped: it is "+key {
			t.Fatal(own.Message)
		}
	}
	for key := range failures {
		var value Common
		if err := json.Unmarshal(values(t)[0], &value); err != nil {
			t.Fatal(err)
		}
		value.Byte = key[0] - '0'
		_, err := client.Same(ctx, SameArguments{Value: value})
		of(key, err)
		// Of a method with items, wherever they are met.
		for _, meet := range []func(*pipeplug.MethodStream[TurnItem, TurnResultItem, pipeplug.None]) error{
			func(s *pipeplug.MethodStream[TurnItem, TurnResultItem, pipeplug.None]) error {
				_, err := s.In.Recv()
				return err
			},
			func(s *pipeplug.MethodStream[TurnItem, TurnResultItem, pipeplug.None]) error {
				_, err := s.Result()
				return err
			},
			func(s *pipeplug.MethodStream[TurnItem, TurnResultItem, pipeplug.None]) error {
				_, _, err := s.All()
				return err
			},
		} {
			stream, err := client.Turn(ctx)
			if err == nil {
				err = stream.Out.Send([]string{key})
			}
			if err != nil {
				t.Fatal(err)
			}
			of(key, meet(stream))
		}
	}
	of("1", client.Fails(ctx))
}

func TestItemsAreTheSame(t *testing.T) {
	client, ctx := start(t), context.Background()
	stream, err := client.Turn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, lines := range []TurnItem{nil, {"a", "b"}} {
		if err := stream.Out.Send(lines); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.Out.Close(); err != nil {
		t.Fatal(err)
	}
	items, _, err := stream.All()
	if err != nil {
		t.Fatal(err)
	}
	if want := []TurnResultItem{{}, {{Label: "a"}, {Label: "b"}}}; !reflect.DeepEqual(items, want) {
		t.Fatalf("%#v", items)
	}
	words, err := client.Words(ctx, WordsArguments{})
	if err != nil {
		t.Fatal(err)
	}
	if all, _, err := words.All(); err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	moods, err := client.Both(ctx, BothArguments{Prefix: "Go"})
	if err != nil {
		t.Fatal(err)
	}
	if err = moods.Out.Send(Tree{Label: "od"}); err == nil {
		err = moods.Out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if all, _, err := moods.All(); err != nil || len(all) != 1 || all[0] != MoodGood {
		t.Fatal(all, err)
	}
	if all, err := client.Type(ctx, TypeArguments{Range: "x"}); err != nil || all == nil {
		t.Fatal(all, err)
	}
}
