package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
)

// Bounds on what is read of a file or a report.
const (
	fileBytesMax = 64 << 20
	lineBytesMax = 1 << 20
)

// Download reads a file into w.
func (c *Client) Download(ctx context.Context, r Request, w io.Writer) error {
	res, err := c.open(ctx, r, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(w, io.LimitReader(res.Body, fileBytesMax+1))
	switch {
	case err != nil:
		return c.unreachable(ctx, err)
	case n > fileBytesMax:
		return fmt.Errorf("the file has more than %d MiB", fileBytesMax>>20)
	}
	return nil
}

// Stream sends a file once, and reads the answer line by line as it comes.
func (c *Client) Stream(ctx context.Context, r Request, file io.Reader, line func([]byte) error) error {
	res, err := c.open(ctx, r, file)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), lineBytesMax)
	for lines.Scan() {
		if err := line(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}

// open makes one call whose answer is no JSON envelope; a refusal is an Error.
func (c *Client) open(ctx context.Context, r Request, body io.Reader) (*http.Response, error) {
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	address := c.base.String() + r.Path
	if len(r.Query) > 0 {
		address += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, address, body)
	if err != nil {
		return nil, &Error{Code: "usage", Detail: err.Error()}
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if r.After != "" {
		req.Header.Set("Last-Event-ID", r.After)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		b, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax))
		if err != nil {
			return nil, c.unreachable(ctx, err)
		}
		return nil, refusal(response{status: res.StatusCode, body: b})
	}
	return res, nil
}
