package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dspgate/dspgate/internal/freeport"
)

// Where the demo finds its programs, and where they listen.

// findTool finds a program: by environment variable, beside the built binary's
// repository in .tools, in the present folder's .tools, or on PATH.
func findTool(name, env, self string) (string, error) {
	candidates := []string{os.Getenv(env)}
	if onPath, err := exec.LookPath(name); err == nil && name != "envoy" {
		candidates = append(candidates, onPath)
	}
	candidates = append(candidates,
		filepath.Join(filepath.Dir(filepath.Dir(self)), ".tools", name),
		filepath.Join(".tools", name))
	if onPath, err := exec.LookPath(name); err == nil {
		candidates = append(candidates, onPath)
	}
	for _, c := range candidates {
		if info, err := os.Stat(c); c != "" && err == nil && info.Mode()&0o111 != 0 {
			return filepath.Abs(c)
		}
	}
	return "", fmt.Errorf("no %s found: run 'make tools' once, or set %s to its path", name, env)
}

// pickPorts turns every address flag into 127.0.0.1 and a port nobody uses.
func (d *demo) pickPorts() error {
	if d.o.ingressTLS == "" {
		d.o.ingressTLS = ":10443"
		if strings.HasSuffix(d.o.ingress, ":0") {
			d.o.ingressTLS = ":0"
		}
	}
	var held []net.Listener
	defer func() {
		for _, ln := range held {
			ln.Close()
		}
	}()
	for _, a := range []struct {
		flag string
		addr *string
	}{
		{"--ingress", &d.o.ingress}, {"--ingress-tls", &d.o.ingressTLS}, {"--control", &d.o.control},
		{"--redis", &d.o.redis}, {"--envoy-admin", &d.o.envoyAdmin},
	} {
		host, port, err := net.SplitHostPort(*a.addr)
		if err != nil {
			return usageError("%s %s: write :PORT or 127.0.0.1:PORT", a.flag, *a.addr)
		}
		if host != "" && host != "127.0.0.1" && host != "localhost" {
			return usageError("%s %s: the demo listens on 127.0.0.1 only", a.flag, *a.addr)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			return usageError("%s: %d is no port", a.flag, n)
		}
		pick := freeport.Listen
		if port != "0" {
			pick = func() (net.Listener, error) { return listen("127.0.0.1:" + port) }
		}
		ln, err := pick()
		if err != nil {
			return fmt.Errorf("%s: %w", a.flag, err)
		}
		held = append(held, ln)
		*a.addr = ln.Addr().String()
	}
	d.info.Ingress = "http://" + d.o.ingress
	d.info.IngressTLS = "https://" + d.o.ingressTLS
	d.info.Control = "http://" + d.o.control
	d.info.Redis = "redis://" + d.o.redis
	d.info.EnvoyAdmin = "http://" + d.o.envoyAdmin
	d.info.PIDs.Demo = os.Getpid()
	return nil
}
