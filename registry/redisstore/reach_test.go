package redisstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

func TestARedisClusterPassesTheSuite(t *testing.T) {
	suite(t, redisstore.Config{Addrs: []string{redistest.StartCluster(t).Addr}, Cluster: true})
}

func TestASentinelLeadsToTheNewPrimary(t *testing.T) {
	primary, replica := redistest.Start(t), redistest.Start(t)
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	sentinel := redistest.StartSentinel(t, "register", primary)
	s := open(t, redisstore.Config{Addrs: []string{sentinel.Addr}, Master: "register", Replicas: 1, ReplicaTimeout: 20 * time.Second})
	w := registrytest.NewWriter(t, s)
	for i := range 20 {
		w.Put(product("FP-1", fmt.Sprint(i)))
	}
	// The Sentinel must know of the replica before it can promote it.
	until(t, "the Sentinel knows the replica", func() bool {
		reply, err := sentinel.Do("SENTINEL", "REPLICAS", "register")
		return err == nil && reply == "*1"
	})
	primary.Kill()
	one := open(t, redisstore.Config{Addrs: []string{replica.Addr}})
	until(t, "the replica is promoted", func() bool {
		_, err := one.Lead(t.Context(), "writer", w.Epoch, time.Hour)
		return err == nil
	})
	until(t, "the store follows", func() bool {
		h, err := s.Snapshot(t.Context(), func(*registry.Record) error { return nil })
		return err == nil && h.Revision == 20
	})
}

func TestAPasswordIsReadFromItsFileAtEveryConnection(t *testing.T) {
	srv := redistest.Start(t)
	file := filepath.Join(t.TempDir(), "password")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := redisstore.Config{Addrs: []string{srv.Addr}, Username: "gate", PasswordFile: file}
	if _, err := redisstore.Open(t.Context(), cfg, nil); err == nil {
		t.Error("opened without its password file")
	}
	write("")
	if _, err := redisstore.Open(t.Context(), cfg, nil); err == nil {
		t.Error("opened with an empty password file")
	}
	srv.Must("ACL", "SETUSER", "gate", "on", ">right", "resetchannels", "~{dspgate}:*", "&{dspgate}:*", "+@all")
	write("wrong\n")
	if _, err := redisstore.Open(t.Context(), cfg, nil); err == nil {
		t.Error("opened with a wrong password")
	}
	write("right\n")
	s := open(t, cfg)
	w := registrytest.NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	srv.Must("ACL", "SETUSER", "gate", "resetpass", ">next")
	write("next")
	srv.Must("CLIENT", "KILL", "USER", "gate")
	until(t, "the new password is used", func() bool {
		_, err := s.Roll(t.Context())
		return err == nil
	})
}

func TestTLSIsVerified(t *testing.T) {
	srv := redistest.Start(t)
	ca, front := tlsFront(t, srv.Addr)
	cfg := redisstore.Config{Addrs: []string{front}, TLS: true, CAFile: ca, ServerName: "redis.example", Timeout: 5 * time.Second}
	registrytest.NewWriter(t, open(t, cfg)).Put(product("FP-1", "a"))
	for name, change := range map[string]func(*redisstore.Config){
		"another name":     func(c *redisstore.Config) { c.ServerName = "other.example" },
		"an unknown CA":    func(c *redisstore.Config) { c.CAFile = "" },
		"no TLS":           func(c *redisstore.Config) { c.TLS = false; c.Timeout = 200 * time.Millisecond },
		"a missing CAFile": func(c *redisstore.Config) { c.CAFile = ca + "-none" },
	} {
		c := cfg
		change(&c)
		s, err := redisstore.Open(t.Context(), c, nil)
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
		} else if name != "a missing CAFile" && !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
}

// tlsFront takes TLS off connections and passes them on; it returns the CA's file and its address.
func tlsFront(t *testing.T, backend string) (caFile, addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"redis.example"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				b, err := net.Dial("tcp", backend)
				if err != nil {
					return
				}
				defer func() { _ = b.Close() }()
				go func() { _, _ = io.Copy(b, c); _ = b.Close() }()
				_, _ = io.Copy(c, b)
			}()
		}
	}()
	return caFile, l.Addr().String()
}
