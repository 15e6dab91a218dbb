package certification

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid: the input of a person is wrong; inside a FieldError.
	ErrInvalid = errors.New("invalid")
	// ErrData: a data file of the framework is wrong: nothing starts with it.
	ErrData = errors.New("framework data")
)

// FieldError says which field of the input is wrong and what to do about it.
type FieldError struct {
	Field string // JSON pointer (RFC 6901), e.g. /answers/OSF-AUT.1
	Err   error  // wraps ErrInvalid
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// Invalid makes a FieldError from a plain sentence.
func Invalid(pointer, format string, args ...any) error {
	return &FieldError{Field: pointer, Err: fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
}
