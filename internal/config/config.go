// Package config reads one strict YAML file into one struct.
//
// The struct is the manual. A key the struct does not have is an error that
// names the key, its line and the nearest key there is. Environment variables
// and then --set assignments are laid over the file, by the same keys: the leaf
// redis.addrs is DSPGATE_REDIS_ADDRS. Secrets are never values here but paths of
// files (ReadSecret).
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// EnvPrefix starts the name of every environment variable.
const EnvPrefix = "DSPGATE_"

// fileBytesMax bounds a configuration file.
const fileBytesMax = 1 << 20

// Load fills cfg, a pointer to a struct with yaml tags that holds the defaults
// already: first the file (path may be ""), then the environment, then the
// assignments "key.path=value", whose values are YAML.
func Load(path string, cfg any, environ, sets []string) error {
	if path != "" {
		b, err := readBounded(path, fileBytesMax)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		if err := decode(b, cfg); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	leaves := leafPaths(reflect.TypeOf(cfg).Elem(), "")
	byEnv := map[string]string{}
	for _, l := range leaves {
		byEnv[EnvPrefix+strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(l))] = l
	}
	for _, kv := range environ {
		name, val, _ := strings.Cut(kv, "=")
		if leaf, ok := byEnv[name]; ok {
			if err := assign(cfg, leaf, val); err != nil {
				return fmt.Errorf("environment variable %s: %w", name, err)
			}
		}
	}
	for _, kv := range sets {
		leaf, val, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("--set %s: write key.path=value", kv)
		}
		if !slices.Contains(leaves, leaf) {
			return fmt.Errorf("--set %s: no such key; did you mean %q?", leaf, nearest(leaf, leaves))
		}
		if err := assign(cfg, leaf, val); err != nil {
			return fmt.Errorf("--set %s: %w", leaf, err)
		}
	}
	return nil
}

// assign decodes {a: {b: value}} over cfg.
func assign(cfg any, leaf, val string) error {
	var b bytes.Buffer
	parts := strings.Split(leaf, ".")
	for i, p := range parts {
		fmt.Fprintf(&b, "%s%s:", strings.Repeat("  ", i), p)
		if i < len(parts)-1 {
			b.WriteByte('\n')
		}
	}
	if strings.ContainsAny(val, "\n\r") {
		return errors.New("a value is one line")
	}
	fmt.Fprintf(&b, " %s\n", val)
	return decode(b.Bytes(), cfg)
}

func decode(b []byte, cfg any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	var badDuration string
	err := yaml.UnmarshalWithOptions(b, cfg, yaml.Strict(), yaml.CustomUnmarshaler(func(d *time.Duration, b []byte) (err error) {
		text := strings.Trim(strings.TrimSpace(string(b)), `"'`)
		if *d, err = time.ParseDuration(text); err != nil {
			badDuration = text
		}
		return err
	}))
	if err == nil {
		return nil
	}
	if badDuration != "" {
		return fmt.Errorf("line %d: %q is no duration; write one such as 500ms, 2s or 24h", lineOf(b, badDuration), badDuration)
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) && unknown.GetToken() != nil {
		t := unknown.GetToken()
		return fmt.Errorf("line %d: no such key %q; did you mean %q?", t.Position.Line, t.Value,
			nearest(t.Value, keys(reflect.TypeOf(cfg).Elem(), nil)))
	}
	var duplicate *yaml.DuplicateKeyError
	if errors.As(err, &duplicate) && duplicate.GetToken() != nil {
		return fmt.Errorf("line %d: the key %q stands twice", duplicate.GetToken().Position.Line, duplicate.GetToken().Value)
	}
	var syntax yaml.Error
	if errors.As(err, &syntax) && syntax.GetToken() != nil {
		return fmt.Errorf("line %d: %s", syntax.GetToken().Position.Line, syntax.GetMessage())
	}
	return err
}

// lineOf finds the line on which a scalar stands: the library gives an error of
// a custom value no position.
func lineOf(b []byte, scalar string) int {
	for i, line := range strings.Split(string(b), "\n") {
		if _, val, ok := strings.Cut(line, ":"); ok && strings.Contains(val, scalar) {
			return i + 1
		}
	}
	return 1
}

// leafPaths lists the dotted paths of everything that is not a struct.
func leafPaths(t reflect.Type, prefix string) (out []string) {
	for f := range fields(t) {
		name := prefix + yamlName(f)
		if ft := deref(f.Type); ft.Kind() == reflect.Struct && !isValue(ft) {
			out = append(out, leafPaths(ft, name+".")...)
			continue
		}
		out = append(out, name)
	}
	return out
}

// keys lists every key name anywhere below t.
func keys(t reflect.Type, out []string) []string {
	t = deref(t)
	switch t.Kind() {
	case reflect.Slice, reflect.Map:
		return keys(t.Elem(), out)
	case reflect.Struct:
		if isValue(t) {
			return out
		}
		for f := range fields(t) {
			out = keys(f.Type, append(out, yamlName(f)))
		}
	}
	return out
}

func fields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for _, f := range reflect.VisibleFields(t) {
			if f.IsExported() && !f.Anonymous && yamlName(f) != "-" && len(f.Index) == 1 && !yield(f) {
				return
			}
		}
	}
}

func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return cmp.Or(name, strings.ToLower(f.Name))
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// isValue tells whether a struct is written as one YAML scalar.
func isValue(t reflect.Type) bool {
	if t == reflect.TypeFor[time.Time]() {
		return true
	}
	type unmarshaler interface{ UnmarshalText([]byte) error }
	return reflect.PointerTo(t).Implements(reflect.TypeFor[unmarshaler]())
}

// nearest is the candidate with the smallest edit distance.
func nearest(s string, candidates []string) string {
	if len(candidates) == 0 {
		return ""
	}
	return slices.MinFunc(candidates, func(a, b string) int { return cmp.Compare(distance(s, a), distance(s, b)) })
}

// distance is the Levenshtein distance of two short keys.
func distance(a, b string) int {
	if len(a) > 64 {
		a = a[:64]
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// ReadSecret reads a secret from a file: at most 64 KiB, surrounding white
// space cut, refused when other users may read it.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("secret file: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("secret file %s: others may read it; chmod it to 0600", path)
	}
	b, err := readBounded(path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("secret file: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil, fmt.Errorf("secret file %s: is empty", path)
	}
	return b, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() || info.Size() > limit {
		return nil, fmt.Errorf("%s: is no file of at most %d bytes", path, limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
