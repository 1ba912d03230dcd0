package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Config is what config.json says. Loading checks it, so it can't be
// ambiguous; it never changes afterwards: an edited file makes a new Config.
type Config struct {
	Port                 int    // TCP port to listen on, 1 to 65535
	UnknownCallerMessage string // "": none is spoken
	ConnectingMessage    string // "": none is spoken
	RingTimeout          int    // seconds, 1 to 86400; 0: Plivo's
	TimeLimit            int    // seconds, 1 to 86400; 0: Plivo's
	sides                []side // each pairing twice, sorted: the two-way lookup
}

// A side is a pairing as it serves one of its parties, when that one calls.
// A sorted slice of them takes half the memory of a map, and less time to make.
type side struct {
	called Number // the Plivo number, Number{} for any
	caller Number
	peer   Number // whom to dial
	line   int32  // of the pairing in the file, for messages
	role   Role   // of the caller
}

// compare orders sides for lookup; those of one call are equal.
func (s side) compare(t side) int {
	if s.called != t.called {
		return cmp.Compare(s.called.flipped, t.called.flipped)
	}
	return cmp.Compare(s.caller.flipped, t.caller.flipped)
}

// Peer returns whom to dial when caller calls the Plivo number called, and
// caller's role in that pairing; ok is false if caller is in no pairing.
func (c *Config) Peer(caller, called Number) (peer Number, role Role, ok bool) {
	for _, called := range [...]Number{called, {}} {
		if i, ok := slices.BinarySearchFunc(c.sides, side{called: called, caller: caller}, side.compare); ok {
			return c.sides[i].peer, c.sides[i].role, true
		}
	}
	return Number{}, 0, false
}

// Pairings returns how many there are.
func (c *Config) Pairings() int { return len(c.sides) / 2 }

// A Role is what a caller is in a pairing.
type Role uint8

const (
	Customer Role = iota
	Agent
)

func (r Role) String() string { return [...]string{"customer", "agent"}[r] }

// A ConfigFile is the file that a Config is loaded from, watched for edits.
type ConfigFile struct {
	path  string
	seen  os.FileInfo // at the last look
	due   bool        // the last look saw an edit, or the last load could not read
	known [sha256.Size]byte
}

// ErrKnown is what Load returns if it finds what it found the last time.
var ErrKnown = errors.New("the file has not changed since it was last read")

// Edited looks at the file and reports whether to load it. That is so at the
// look after the one that saw an edit: by then a writer that writes in pieces
// is likely done, and no edit can hide behind the modification time of one
// that was loaded. It asks for what the path leads to, so an edit in place, a
// rename and a switched symlink are all seen.
func (f *ConfigFile) Edited() bool {
	due := f.due
	now, err := os.Stat(f.path)
	f.due = err != nil || f.seen == nil || !os.SameFile(now, f.seen) ||
		now.Size() != f.seen.Size() || !now.ModTime().Equal(f.seen.ModTime())
	if err == nil {
		f.seen = now
	}
	return due
}

// Load reads and checks the file. The error lists what is wrong with it, a
// problem a line, never showing a phone number; it is ErrKnown if the file, or
// the reason why it can't be read, is as it was when last loaded.
func (f *ConfigFile) Load() (*Config, error) {
	data, err := os.ReadFile(f.path)
	if err != nil {
		f.due, data = true, []byte(err.Error())
	}
	known := f.known
	f.known = sha256.Sum256(data)
	switch {
	case f.known == known:
		return nil, ErrKnown
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w; put it there, or name another file with -config", err)
	case err != nil:
		return nil, fmt.Errorf("cannot read the pairings: %w", err)
	}
	return ParseConfig(f.path, data)
}

// Forget makes the next Load report whatever it finds.
func (f *ConfigFile) Forget() { f.known = [sha256.Size]byte{} }

// ParseConfig checks data, the contents of the file name, which it only needs
// for the error: lines of the form "config.json:LINE: what is wrong and what
// to do", or "config.json:LINE:COLUMN: …" if data is not JSON.
func ParseConfig(name string, data []byte) (*Config, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // Windows editors begin files with it
	if !json.Valid(data) {
		return nil, syntaxError(name, data)
	}
	p := &parser{dec: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1}
	p.dec.UseNumber()
	p.sides = make([]side, 0, 2*bytes.Count(data, []byte(":"))) // room for all, as a million would outgrow it often

	c := &Config{Port: 5000}
	plivoLines := map[Number]int{}
	lines := p.fields("the file", map[string]func(){
		"app": func() {
			p.fields(`"app"`, map[string]func(){
				"port": func() { c.Port = p.integer(`"port"`, 1, 65535) },
			})
		},
		"call": func() {
			p.fields(`"call"`, map[string]func(){
				"unknownCallerMessage": func() { c.UnknownCallerMessage = p.message(`"unknownCallerMessage"`) },
				"connectingMessage":    func() { c.ConnectingMessage = p.message(`"connectingMessage"`) },
				"ringTimeout":          func() { c.RingTimeout = p.integer(`"ringTimeout"`, 1, 86400) },
				"timeLimit":            func() { c.TimeLimit = p.integer(`"timeLimit"`, 1, 86400) },
			})
		},
		"customerAgentMap": func() { p.pairings(`"customerAgentMap"`, Number{}) },
		"plivoNumbers": func() {
			p.members(`"plivoNumbers"`, func(key string) {
				called := p.number("Plivo number", key)
				if called == (Number{}) {
					called.flipped = uint64(p.line) // nobody's number, so that the pairings are checked all the same
				}
				if first := plivoLines[called]; first > 0 {
					p.problem("the Plivo number is already in line %d: put all its pairings there", first)
				}
				plivoLines[called] = p.line
				p.pairings("what follows a Plivo number", called)
			})
		},
	})
	if lines["customerAgentMap"]+lines["plivoNumbers"] == 0 {
		p.problem(`there are no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet`)
	}
	c.sides = p.sorted(plivoLines)
	if err := p.err(name); err != nil {
		return nil, err
	}
	return c, nil
}

// A parser walks through JSON that is known to be valid and collects what is
// wrong with its meaning.
type parser struct {
	dec      *json.Decoder
	data     []byte
	counted  int // bytes of data of which the lines are counted
	line     int // of the key or value read last
	sides    []side
	problems []problem
}

type problem struct {
	line int
	text string
}

func (p *parser) problem(format string, args ...any) {
	p.problems = append(p.problems, problem{p.line, fmt.Sprintf(format, args...)})
}

// err returns the problems as one error, nil if there are none.
func (p *parser) err(name string) error {
	const most = 20
	if len(p.problems) == 0 {
		return nil
	}
	var lines []string
	slices.SortStableFunc(p.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	for _, found := range p.problems[:min(most, len(p.problems))] {
		lines = append(lines, fmt.Sprintf("%s:%d: %s", name, found.line, found.text))
	}
	if more := len(p.problems) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("%s: %d more problems like these", name, more))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// count brings line up to a place in data, which is not before the last one.
func (p *parser) count(to int) {
	p.line += bytes.Count(p.data[p.counted:to], []byte("\n"))
	p.counted = to
}

// peek goes to where the next value begins and returns its first byte.
func (p *parser) peek() byte {
	rest := bytes.TrimLeft(p.data[p.dec.InputOffset():], ": \t\r\n")
	p.count(len(p.data) - len(rest))
	return rest[0]
}

func (p *parser) value() (v any) {
	p.peek()
	_ = p.dec.Decode(&v) // cannot fail: the data is valid
	return v
}

// members reads an object and calls member, which must read the value, for
// each key.
func (p *parser) members(what string, member func(key string)) {
	if p.peek() != '{' {
		p.problem("%s must be an object: write it as { … }", what)
		p.value()
		return
	}
	_, _ = p.dec.Token() // the opening brace
	for p.dec.More() {
		key, _ := p.dec.Token()
		p.count(int(p.dec.InputOffset()))
		member(key.(string))
	}
	_, _ = p.dec.Token()
	p.count(int(p.dec.InputOffset()))
}

// fields reads an object whose keys are known beforehand, each with the
// function that reads its value, and returns in which lines the keys stand.
func (p *parser) fields(what string, known map[string]func()) (lines map[string]int) {
	lines = map[string]int{}
	p.members(what, func(key string) {
		read, ok := known[key]
		switch {
		case !ok:
			p.problem("unknown key %q in %s: remove it, or write one of %q", redact(key), what, slices.Sorted(maps.Keys(known)))
			p.value()
		case lines[key] > 0:
			p.problem("%q is already in line %d: keep one of the two", key, lines[key])
			p.value()
		default:
			lines[key] = p.line
			read()
		}
	})
	return lines
}

func (p *parser) integer(what string, low, high int) int {
	number, _ := p.value().(json.Number)
	n, err := strconv.Atoi(number.String())
	if err != nil || n < low || n > high {
		p.problem("%s must be a whole number from %d to %d, without quotes", what, low, high)
	}
	return n
}

func (p *parser) message(what string) string {
	const most = 10_000 // as XML at most 50 kB, and Plivo takes 100 kB: https://www.plivo.com/docs/voice/xml/request
	text, ok := p.value().(string)
	if !ok || len(text) > most {
		p.problem("%s must be a text in quotes, of at most %d bytes", what, most)
	}
	return text
}

// pairings reads a map from customers to agents, for calls to the Plivo number
// called.
func (p *parser) pairings(what string, called Number) {
	p.members(what, func(key string) {
		customer := p.number(Customer.String(), key)
		text, ok := p.value().(string)
		if !ok {
			p.problem("the agent must be a phone number in quotes")
			return
		}
		agent := p.number(Agent.String(), text)
		switch {
		case customer == Number{} || agent == Number{}:
		case customer == agent:
			p.problem("the customer is paired with itself: write the agent's number after the customer's")
		default:
			p.sides = append(p.sides, side{called, customer, agent, int32(p.line), Customer}, side{called, agent, customer, int32(p.line), Agent})
		}
	})
}

func (p *parser) number(what, text string) Number {
	n, err := ParseNumber(text)
	if err != nil {
		p.problem("the %s is no phone number: %v", what, err)
	}
	return n
}

// sorted returns the sides as a Config has them, having found those for which a
// call could ring the wrong phone.
func (p *parser) sorted(plivoLines map[Number]int) []side {
	slices.SortFunc(p.sides, func(s, t side) int {
		return cmp.Or(s.compare(t), cmp.Compare(s.line, t.line), cmp.Compare(s.role, t.role))
	})
	for i, s := range p.sides {
		p.line = int(s.line)
		if i > 0 && s.compare(p.sides[i-1]) == 0 {
			p.problem("the %s is already the %s of the pairing in line %d, and only one phone can ring: change or remove one of the two",
				s.role, p.sides[i-1].role, p.sides[i-1].line)
		}
		if line := plivoLines[s.caller]; line > 0 {
			p.problem("the %s is also the Plivo number in line %d, which would then dial itself: change or remove one of the two", s.role, line)
		}
	}
	return p.sides
}

// syntaxError says where data stops being JSON.
func syntaxError(name string, data []byte) error {
	var discard json.RawMessage
	err := json.Unmarshal(data, &discard)
	at, what := len(data), "look for a missing comma, quote or brace here or just before"
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = max(int(bad.Offset)-1, 0)
	}
	before := bytes.TrimRight(data[:at], " \t\r\n")
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		err, what = errors.New("the file is empty"), "write at least { \"customerAgentMap\": {} }"
	case at < len(data) && bytes.IndexByte([]byte("}]"), data[at]) >= 0 && bytes.HasSuffix(before, []byte(",")):
		at = len(before) - 1
		err, what = errors.New("a comma before a closing brace"), "remove the comma"
	}
	line := 1 + bytes.Count(data[:at], []byte("\n"))
	column := 1 + utf8.RuneCount(data[bytes.LastIndexByte(data[:at], '\n')+1:at])
	return fmt.Errorf("%s:%d:%d: %w: %s", name, line, column, err, what)
}

// A Number is a phone number in E.164 form: a country code and at least four
// more digits, 7 to 15 in all. ParseNumber makes them, so a Number other than
// Number{}, which stands for none, is well formed. It prints with all but the
// last four digits masked; only Digits shows them all.
type Number struct {
	// The digits read as one integer, with all bits flipped: fmt prints an
	// unexported field without asking the type how, and then shows no number.
	flipped uint64
}

// ParseNumber reads a phone number with its country code in any notation that
// people use, such as +1 (415) 666-7777. The error says what is wrong without
// showing the number.
func ParseNumber(s string) (Number, error) {
	var value uint64
	digits, plus := 0, false
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			if digits++; digits == 1 && r == '0' {
				return Number{}, errors.New("it begins with 0; begin with the country code, without 0 or 00")
			}
			if digits <= 15 { // more would overflow, and are an error below
				value = value*10 + uint64(r-'0')
			}
		case r == '+' && digits == 0 && !plus:
			plus = true
		case r == '+':
			return Number{}, errors.New("it has a + that is not its first character; remove that")
		case !strings.ContainsRune(" -.()", r):
			return Number{}, errors.New("it has a character other than digits, a + in front, spaces and - . ( ); remove that")
		}
	}
	if digits < 7 || digits > 15 {
		return Number{}, fmt.Errorf("it has %d digits; write 7 to 15, country code included", digits)
	}
	return Number{^value}, nil
}

// Digits returns the whole number, country code first, without +: the form in
// which Plivo sends and takes numbers. It returns "" for Number{}.
func (n Number) Digits() string {
	if n == (Number{}) {
		return ""
	}
	return strconv.FormatUint(^n.flipped, 10)
}

// String returns the number with all but the last four digits masked, and
// Format prints that for every verb of fmt.
func (n Number) String() string {
	if n == (Number{}) {
		return "none"
	}
	return mask(n.Digits())
}

func (n Number) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

func mask(digits string) string {
	return strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]
}

var digitGroup = regexp.MustCompile(`[0-9](?:[ .()-]*[0-9]){6,}`)

// redact returns text that came from outside in a form fit for logs and
// messages: cut to a sensible length, and what could be a phone number masked.
func redact(text string) string {
	const longest = 100
	if isUUID(text) {
		return text // its digits stand for a call
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' ' // which does not hide the rest of a number
		}
		return r
	}, text)
	text = digitGroup.ReplaceAllStringFunc(text, mask)
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return text
}

// isUUID does without a regular expression because each call is asked.
func isUUID(text string) bool {
	groups := strings.Split(text, "-")
	for i, length := range []int{8, 4, 4, 4, 12} {
		if len(groups) != 5 || len(groups[i]) != length || strings.Trim(groups[i], "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}
