package pipeplug

import "encoding/json"

// ItemReader takes items of a stream.
type ItemReader[T any] struct {
	parts  *PartReader
	errors func(error) error // nil if errors are those of the connection
}

// Recv returns the next item; io.EOF after the last one.
func (r *ItemReader[T]) Recv() (T, error) {
	var item T
	part, err := r.parts.Recv()
	if err != nil {
		return item, callersError(r.errors, err)
	}
	if err := json.Unmarshal(part, &item); err != nil {
		return item, Errorf(CodeInvalidArgument, "an item does not fit: %v", err)
	}
	return item, nil
}

// Enough tells the sender that no more items are wanted.
func (r *ItemReader[T]) Enough(reason string) { r.parts.Enough(reason) }

// ItemWriter sends items of a stream.
type ItemWriter[T any] struct {
	parts  *PartWriter
	errors func(error) error
}

// Send sends an item. The error is ErrEnough if the receiver wants no more.
func (w *ItemWriter[T]) Send(item T) error {
	text, err := json.Marshal(item)
	if err != nil {
		return Errorf(CodeInvalidResult, "an item cannot be encoded: %v", err)
	}
	return callersError(w.errors, w.parts.Send(text))
}

// Close says that the items are complete.
func (w *ItemWriter[T]) Close() error { return callersError(w.errors, w.parts.Close()) }

// callersError is the error of a call, as the caller wants it.
func callersError(errors func(error) error, err error) error {
	if err == nil || errors == nil {
		return err
	}
	return errors(err)
}
