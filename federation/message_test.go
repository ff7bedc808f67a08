package federation

import (
	"crypto/ed25519"
	"errors"
	"reflect"
	"slices"
	"testing"

	"tunesmith/secure"
)

func key(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(slices.Repeat([]byte{b}, 32)) }

var testMembers = Members{ServerName: key(1).Public().(ed25519.PublicKey), "north": key(2).Public().(ed25519.PublicKey)}

func TestMessages(t *testing.T) {
	m := Message{Kind: KindUpdate, Federation: "fed", Sender: "north", Round: 3, Task: "t", Report: &Report{Examples: 4, Loss: 0.5}, Body: []byte{1, 2, 3}}
	sealed, err := m.Seal(key(2))
	if err != nil {
		t.Fatal(err)
	}
	have, err := OpenMessage(sealed, "north", testMembers)
	if err != nil || !reflect.DeepEqual(have, m) {
		t.Errorf("want %+v, have %+v, %v", m, have, err)
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, err := OpenMessage(changed, "north", testMembers); !errors.Is(err, ErrForged) {
			t.Fatalf("byte %d changed: want a forged message, have %v", i, err)
		}
	}
	if _, err := OpenMessage(sealed, ServerName, testMembers); !errors.Is(err, ErrForged) {
		t.Errorf("another sender: want a forged message, have %v", err)
	}
	if _, err := OpenMessage(sealed, "west", testMembers); err == nil {
		t.Error("want a stranger refused")
	}
	m.Sender = ServerName
	sealed, _ = m.Seal(key(2))
	if _, err := OpenMessage(sealed, "north", testMembers); err == nil {
		t.Error("want a message refused that names another sender")
	}
}

// TestAllowList lists every field that can be on the wire. A new one is a decision about privacy: texts are names,
// digests, codes and kinds, and nothing else can carry a record.
func TestAllowList(t *testing.T) {
	want := []string{
		"Message.Kind federation.Kind", "Message.Federation string", "Message.Sender string", "Message.Round int", "Message.Attempt int",
		"Message.Task string", "Message.Code federation.Code", "Message.Join *federation.Facts", "Message.Token []uint8", "Message.Step int",
		"Message.Report *federation.Report", "Message.Clip float64", "Message.Parties int", "Message.Threshold int", "Message.Keys []secure.Keys",
		"Message.Envelopes []secure.Envelope", "Message.Survivors []string", "Message.Reveal *secure.Reveal", "Message.Body []uint8",
		"Facts.Base string", "Facts.Tokenizer string", "Facts.Template string", "Facts.Settings string", "Facts.Shapes []federation.Shape",
		"Shape.Name string", "Shape.Dims []int",
		"Report.Examples int", "Report.Loss float64", "Report.Held float64", "Report.HeldN int", "Report.Epsilon float64", "Report.Controls int",
		"Keys.Name string", "Keys.Mask []uint8", "Keys.Seal []uint8", "Keys.Signature []uint8",
		"Envelope.From string", "Envelope.To string", "Envelope.Sealed []uint8",
		"Reveal.Name string", "Reveal.Masks map[string][]uint8", "Reveal.Keys map[string][]uint8",
	}
	var have []string
	for _, v := range []any{Message{}, Facts{}, Shape{}, Report{}, secure.Keys{}, secure.Envelope{}, secure.Reveal{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			have = append(have, reflect.TypeOf(v).Name()+"."+f.Name+" "+f.Type.String())
		}
	}
	if !slices.Equal(have, want) {
		t.Errorf("fields on the wire:\nwant %q\nhave %q", want, have)
	}
}

func FuzzOpenMessage(f *testing.F) {
	m := Message{Kind: KindJoin, Federation: "fed", Sender: "north", Join: &Facts{Base: "b", Shapes: []Shape{{"w", []int{2, 3}}}}}
	sealed, err := m.Seal(key(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed[:len(sealed)-ed25519.SignatureSize])
	f.Add([]byte{255, 255, 255, 255, '{'})
	f.Fuzz(func(t *testing.T, signed []byte) {
		m, err := OpenMessage(append(signed, ed25519.Sign(key(2), signed)...), "north", testMembers)
		if err == nil && m.Join != nil {
			if like, err := tensorsOf(m.Join.Shapes[:min(1, len(m.Join.Shapes))]); err == nil && size(like) > 1<<33 {
				t.Error("an impossible shape was taken")
			}
		}
	})
}
