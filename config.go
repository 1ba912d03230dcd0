package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Config is what config.json says. It has been checked, so it can't be ambiguous, and it never changes.
type Config struct {
	Port                 int     // TCP port to listen on, 1 to 65535
	UnknownCallerMessage string  // spoken before hanging up; "" rejects the call unanswered
	ConnectingMessage    string  // spoken before dialling; "" says nothing
	NoAnswerMessage      string  // spoken if the other phone is not picked up; "" ends the call
	AcceptMessage        string  // spoken to whoever picks up, who then presses 1; "" connects at once
	Language             *string // of the messages, such as de-DE; nil leaves it to Plivo
	RingTimeout          *int    // seconds, 1 to 86400; nil leaves it to Plivo
	TimeLimit            *int    // seconds, 1 to 86400; nil leaves it to Plivo
	PairingCount         int     // in all its maps

	customerAgentMap Lookup            // for calls to each Plivo number that plivoNumbers does not list
	plivoNumbers     map[Number]Lookup // Plivo number → its own pairings
}

// A Lookup finds a pairing by its caller: it has each pairing twice, for the customer and for the agent.
type Lookup map[Number]Pairing

// A Pairing joins a customer and an agent, seen from the one who calls.
type Pairing struct {
	Peer    Number // the other one, whose phone will ring
	byAgent bool   // the caller is the agent
	at      int32  // where the caller stands in the file, for messages; 32 bits, since there may be millions
}

// Caller says what the caller is in the pairing: customer or agent.
func (p Pairing) Caller() string {
	if p.byAgent {
		return "agent"
	}
	return "customer"
}

// Serving returns the pairings for calls to plivoNumber, and whether they are its own.
func (c *Config) Serving(plivoNumber Number) (pairings Lookup, listed bool) {
	if pairings, listed = c.plivoNumbers[plivoNumber]; listed {
		return pairings, true
	}
	return c.customerAgentMap, false
}

// A ConfigFile is the file that a Config is loaded from.
type ConfigFile struct {
	path  string
	tried string // hash of what the last load read, even if that failed
	seen  string // hash of what the last look or load read; the same as tried while looks is 0
	looks int    // how many in a row have differed from tried
}

// Loaded is the result of loading the file: a Config, or the reason why there is none.
type Loaded struct {
	config *Config
	err    error
}

// Watch loads the file after each edit and each SIGHUP, and sends the result, until ctx ends.
func (f *ConfigFile) Watch(ctx context.Context, reloads <-chan os.Signal, loads chan<- Loaded) {
	for {
		var loaded Loaded
		select {
		case <-ctx.Done():
			return
		case <-reloads:
			loaded.config, loaded.err = f.Load()
		case <-time.After(500 * time.Millisecond): // polling works with every editor and every file system
			loaded.config, loaded.err = f.LoadEdit()
		}
		if loaded != (Loaded{}) {
			loads <- loaded
		}
	}
}

// LoadEdit loads the file if it has changed since the last load; if not, it returns nil, nil. It waits until
// two looks in a row have read the same, for ten looks at most: a half-written number may be a stranger's. It
// compares contents, since cp -p and tar keep the time stamp, and one changed digit keeps the size.
func (f *ConfigFile) LoadEdit() (*Config, error) {
	content, hash, err := f.read(f.looks > 0) // the first look that differs is never loaded: no content
	settled := hash == f.seen
	f.seen = hash
	if hash == f.tried {
		f.looks = 0
		return nil, nil
	}
	f.looks++
	if !settled && f.looks <= 10 {
		return nil, nil
	}
	return f.load(content, hash, err)
}

// Load reads and checks the file. The error has one problem a line, and never shows a phone number.
func (f *ConfigFile) Load() (*Config, error) { return f.load(f.read(true)) }

// load takes what read has returned: it notes the hash as tried, and parses the content.
func (f *ConfigFile) load(content, hash string, err error) (*Config, error) {
	f.tried, f.seen, f.looks = hash, hash, 0
	if err != nil {
		return nil, fmt.Errorf("%w; -config must name a file of pairings the server's user can read", err)
	}
	return ParseConfig(f.path, content)
}

// read reads the file. The hash is of its content and the error, so that a file that vanishes or becomes
// unreadable counts as edited, once. The content is "" unless keep is set.
func (f *ConfigFile) read(keep bool) (content, hash string, err error) {
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // else opening a FIFO would block
	if err != nil {
		return "", err.Error(), err
	}
	defer file.Close()
	const limit = 64 << 20 // bytes; a million pairings take 33 MB
	sum, kept := sha256.New(), new(strings.Builder)
	w := io.Writer(sum)
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", f.path)
	case info.Size() > limit:
		err = fmt.Errorf("%s is larger than %d MB, too large for pairings", f.path, limit>>20)
	default:
		if keep {
			kept.Grow(int(info.Size()))
			w = io.MultiWriter(sum, kept)
		}
		_, err = io.Copy(w, io.LimitReader(file, limit)) // as it may have grown since
	}
	return kept.String(), fmt.Sprint(sum.Sum(nil), err), err
}

// ParseConfig checks data, the content of the file called name. The error has one problem a line, such as
// "config.json:LINE:COLUMN: what is wrong and what to do"; if data is not JSON, that is the only problem.
func ParseConfig(name, data string) (*Config, error) {
	p := &parser{data: strings.TrimPrefix(data, "\uFEFF")} // Windows editors begin files with it
	config := p.config()
	if p.total == 0 {
		return config, nil
	}
	var problems []error
	for _, problem := range p.problems {
		problems = append(problems, fmt.Errorf("%s:%s: %s", name, p.place(problem.at), problem.text))
	}
	if more := p.total - len(problems); more > 0 {
		problems = append(problems, fmt.Errorf("%s: %s", name, plural(more, "more problem")))
	}
	return nil, errors.Join(problems...)
}

// A parser reads a Config from front to back, and collects what is wrong. It reads JSON itself: encoding/json
// does not report doubled keys, and its errors do not say what may stand where the JSON breaks off.
type parser struct {
	data     string         // the content of the file
	at       int            // how far it has been read, in bytes
	stopped  bool           // because data is not JSON; that is then the only problem
	plivoAt  map[Number]int // where the file lists which Plivo number
	problems []problem      // the first 20, in the order of the file
	total    int            // how many problems there are, those after the first 20 included
}

type problem struct {
	at   int // in bytes
	text string
}

func (p *parser) problem(at int, format string, args ...any) {
	if p.stopped {
		return
	}
	const limit = 20
	p.total++
	if len(p.problems) < limit || at < p.problems[limit-1].at {
		p.problems = append(p.problems, problem{at, fmt.Sprintf(format, args...)})
		slices.SortStableFunc(p.problems, func(a, b problem) int { return a.at - b.at })
		p.problems = p.problems[:min(limit, len(p.problems))]
	}
}

// A place in the file, kept as the text before it: lines are counted only if it is printed, as LINE:COLUMN.
type place string

func (p *parser) place(at int) place { return place(p.data[:at]) }

func (before place) String() string {
	text := string(before)
	column := utf8.RuneCountInString(text[strings.LastIndexByte(text, '\n')+1:]) + 1
	return fmt.Sprintf("%d:%d", strings.Count(text, "\n")+1, column)
}

var sections = []string{"app", "call", "customerAgentMap", "plivoNumbers"}

func (p *parser) config() *Config {
	c := &Config{Port: 5000}
	const example = `{ "customerAgentMap": ` + pairingForm + ` }`
	if p.peek() != '{' {
		p.unexpected("the file must begin with {, as in " + example)
	}
	for _, section := range p.object("the file", example, sections...) {
		switch section {
		case "app":
			for range p.object("app", `{ "port": 5000 }`, "port") {
				c.Port = p.integer("app.port", 65535)
			}
		case "call":
			p.call(c)
		case "customerAgentMap":
			c.customerAgentMap = p.pairings(section)
		case "plivoNumbers":
			c.plivoNumbers, p.plivoAt = map[Number]Lookup{}, map[Number]int{}
			for at, key := range p.object(section, `{ "PLIVO NUMBER": `+pairingForm+` }`) {
				number := p.number(at, "Plivo number", key)
				if first, again := p.plivoAt[number]; again && number != (Number{}) {
					p.problem(at, "the Plivo number is already at %s: correct one, "+
						"or move its pairings there", p.place(first))
				}
				p.plivoAt[number] = at
				c.plivoNumbers[number] = p.pairings("the pairings of a Plivo number")
			}
		}
	}
	if p.peek(); p.at < len(p.data) {
		p.unexpected("nothing may follow the brace that closes the file: remove it if it comes too early, " +
			"or move what follows before it")
	}
	if p.total == 0 && c.customerAgentMap == nil && c.plivoNumbers == nil {
		p.problem(0, "no pairings: inside the file's braces, write at least \"customerAgentMap\": {}")
	}
	p.finish(c)
	return c
}

func (p *parser) call(c *Config) {
	for _, key := range p.object("call", `{ "ringTimeout": 30 }`, "unknownCallerMessage", "connectingMessage",
		"noAnswerMessage", "acceptMessage", "language", "ringTimeout", "timeLimit") {
		switch key {
		case "unknownCallerMessage":
			c.UnknownCallerMessage = p.message("call." + key)
		case "connectingMessage":
			c.ConnectingMessage = p.message("call." + key)
		case "noAnswerMessage":
			c.NoAnswerMessage = p.message("call." + key)
		case "acceptMessage":
			c.AcceptMessage = p.message("call." + key)
		case "language":
			c.Language = new(p.language())
		case "ringTimeout":
			c.RingTimeout = new(p.integer("call."+key, 86400))
		case "timeLimit":
			c.TimeLimit = new(p.integer("call."+key, 86400))
		}
	}
}

// pairings reads a map from customers to agents.
func (p *parser) pairings(name string) Lookup {
	lookup := Lookup{}
	for at, key := range p.object(name, pairingForm) {
		customer := p.number(at, "customer", key)
		agentAt, text, isText := p.value()
		if !isText {
			p.problem(agentAt, "the agent must be one phone number in double quotes; if this is a Plivo "+
				"number's map, move both into plivoNumbers, or write the brace that is missing before them")
			continue
		}
		agent := p.number(agentAt, "agent", text)
		first, again := lookup[customer]
		switch {
		case customer == Number{} || agent == Number{}: // already reported
		case customer == agent:
			p.problem(agentAt, "the customer and the agent are the same number: correct one")
		case again && first.Peer == agent:
			p.problem(at, "the same pairing is already at %s: remove one of the two", p.place(int(first.at)))
		default:
			p.add(lookup, customer, Pairing{Peer: agent, at: int32(at)})
			p.add(lookup, agent, Pairing{Peer: customer, at: int32(agentAt), byAgent: true})
		}
	}
	return lookup
}

func (p *parser) add(lookup Lookup, caller Number, pairing Pairing) {
	if first, taken := lookup[caller]; taken {
		p.problem(int(pairing.at), "the %s is already the %s at %s, and only one phone can ring: "+
			"correct one, or give each pairing its own Plivo number in plivoNumbers",
			pairing.Caller(), first.Caller(), p.place(int(first.at)))
		return
	}
	lookup[caller] = pairing
}

// finish counts the pairings, and reports each phone that is a Plivo number, in any order: p.problem sorts.
func (p *parser) finish(c *Config) {
	for _, lookup := range slices.AppendSeq([]Lookup{c.customerAgentMap}, maps.Values(c.plivoNumbers)) {
		c.PairingCount += len(lookup) / 2
		for caller, pairing := range lookup {
			if _, listed := p.plivoAt[caller]; listed {
				p.problem(int(pairing.at), "the %s is also a Plivo number, and can't be a person's phone: "+
					"correct one", pairing.Caller())
			}
		}
	}
}

// number reads a phone number as people write it; Number{} if it isn't one.
func (p *parser) number(at int, what, text string) Number {
	number, err := ParseNumber(text)
	if err != nil {
		p.problem(at, "the %s can't be used: %v", what, err)
	}
	return number
}

func (p *parser) integer(name string, limit int) int {
	at, text, isText := p.value()
	n, _ := strconv.Atoi(text)
	if isText || n < 1 || n > limit || strconv.Itoa(n) != text {
		p.problem(at, "%s must be a whole number from 1 to %d, without quotes or leading zeros", name, limit)
	}
	return n
}

func (p *parser) message(name string) string {
	at, text, isText := p.value()
	if !isText || len(text) > 10_000 { // Plivo takes 100 kB: https://www.plivo.com/docs/voice/xml/request
		p.problem(at, "%s must be text in double quotes, of at most 10000 bytes", name)
	}
	return strings.Clone(text) // or all of data would stay in memory
}

// language reads one of the languages in which Plivo has its default voice, a woman's. Given any other, Plivo
// drops the whole answer.
func (p *parser) language() string {
	const languages = "arb cmn-CN cy-GB da-DK de-DE en-AU en-GB en-IN en-US es-ES es-MX es-US fr-CA fr-FR " +
		"hi-IN is-IS it-IT ja-JP ko-KR nb-NO nl-NL pl-PL pt-BR pt-PT ro-RO ru-RU sv-SE tr-TR"
	at, text, isText := p.value()
	if !isText || !slices.Contains(strings.Fields(languages), text) {
		p.problem(at, "call.language must be one of these, in double quotes: %s", languages)
	}
	return strings.Clone(text)
}

// object yields place and key of each member of the object that comes next. With keys, it allows only these,
// each once; without, any. The loop's body may read the value; if it does not, the value is passed over.
func (p *parser) object(name, example string, keys ...string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		if !p.take('{') {
			p.problem(p.at, "%s must be an object such as %s", name, example)
			return
		}
		if p.take('}') {
			return
		}
		places := map[string]int{} // of the keys
		for allowed := keyOrBrace; ; allowed = onlyKey {
			p.expect('"', allowed)
			at := p.at - 1
			key := p.text()
			p.expect(':', onlyColon)
			if p.peek(); p.stopped { // in a line above; those after it then read nothing
				return
			}
			valueAt, known := p.at, slices.Contains(keys, key)
			first, again := places[key]
			switch {
			case !known && slices.Contains(sections, key):
				p.problem(at, "%s is inside %s: move it out, or write the brace missing before it", key, name)
			case !known && keys != nil:
				p.problem(at, "unknown key in %s, which may have only these, spelt exactly so: %s; pairings "+
					"belong inside customerAgentMap, or inside a Plivo number within plivoNumbers: %s",
					name, strings.Join(keys, ", "), pairingForm)
			case again:
				p.problem(at, "this key is already at %s: merge the two, and keep what still holds",
					p.place(first))
			default:
				if known {
					places[key] = at
				}
				if !yield(at, key) {
					return
				}
			}
			if p.at == valueAt { // nobody has read it, or p.object found no brace there
				p.value()
			}
			if !p.take(',') {
				p.expect('}', commaOrBrace)
				return
			}
		}
	}
}

// value reads the next value: the content of a text in double quotes; what stands without quotes, such as
// 5000, null or a phone number; or "" for a list or an object, which it passes over.
func (p *parser) value() (at int, text string, isText bool) {
	p.peek()
	at = p.at
	if p.take('"') {
		return at, p.text(), true
	}
	if word := bareWord.FindString(p.data[at:]); word != "" {
		p.at += len(word)
		return at, strings.TrimRight(word, " "), false
	}
	if !p.take('{') && !p.take('[') {
		p.unexpected(onlyValue)
		return at, "", false
	}
	for depth := 1; depth > 0 && p.peek() != 0; { // if data ends inside it, p.object stops there
		switch {
		case p.take('{'), p.take('['):
			depth++
		case p.take('}'), p.take(']'):
			depth--
		case p.take('"'):
			p.text()
		default:
			p.at++
		}
	}
	return at, "", false
}

// text reads a text whose opening quote has been read.
func (p *parser) text() string {
	begin := p.at
	for p.at < len(p.data) && p.data[p.at] != '"' && p.data[p.at] >= ' ' {
		if p.data[p.at] == '\\' && p.at+1 < len(p.data) {
			p.at++ // what it escapes may be a quote
		}
		p.at++
	}
	raw := p.data[begin:p.at]
	if !strings.HasPrefix(p.data[p.at:], `"`) {
		p.unexpected("") // at a control character or the end of data, where it does not use allowed
		return ""
	}
	p.at++
	switch {
	case !utf8.ValidString(raw):
		p.stop(begin-1, notUTF8)
	case strings.Contains(raw, `\`):
		var text string
		if json.Unmarshal([]byte(`"`+raw+`"`), &text) != nil {
			p.stop(begin-1, "a stray backslash in this text: remove it, or double it")
		}
		return text
	}
	return raw
}

// expect passes over char, or stops if that does not come next, after white space.
func (p *parser) expect(char byte, allowed string) {
	if !p.take(char) {
		p.unexpected(allowed)
	}
}

// take passes over char if that comes next, after white space, and reports whether it did.
func (p *parser) take(char byte) bool {
	if p.peek() != char {
		return false
	}
	p.at++
	return true
}

// peek passes over white space, and returns the byte that follows; 0 at the end.
func (p *parser) peek() byte {
	for ; p.at < len(p.data); p.at++ {
		if char := p.data[p.at]; strings.IndexByte(whiteSpace, char) < 0 {
			return char
		}
	}
	return 0
}

const (
	pairingForm = `{ "CUSTOMER": "AGENT" }`
	whiteSpace  = " \t\r\n" // of JSON
	notUTF8     = "not plain text in UTF-8: save the file as UTF-8, or put back a copy"
	// What may come next; p.unexpected also tells from it what was being read:
	keyOrBrace   = "only a key in double quotes or a closing brace is allowed here"
	onlyKey      = "only a key in double quotes is allowed here"
	onlyColon    = "only a colon is allowed here"
	onlyValue    = "only text in double quotes, a whole number or an opening brace is allowed here"
	commaOrBrace = "only a comma or a closing brace is allowed here"
)

// unexpected stops where data is not JSON, with what was found and what is allowed there. That much is true
// whatever the mistake was; it suggests a remedy only where the mistake is certain.
func (p *parser) unexpected(allowed string) {
	before, rest := strings.TrimRight(p.data[:p.at], whiteSpace), p.data[p.at:]
	char, width := utf8.DecodeRuneInString(rest)
	beginsLine, closes := strings.Contains(p.data[len(before):p.at], "\n"), char == ',' || char == '}'
	at, text := p.at, fmt.Sprintf("unexpected %#U: %s", char, allowed)
	switch {
	case rest == "" && before == "":
		text = `the file is empty: put back a copy; only if there is none, write { "customerAgentMap": {} }`
	case rest == "":
		text = "the file ends too early: its rest is lost (put back a copy), or a brace or quote is missing"
	case char == 0, char == utf8.RuneError && width == 1:
		text = notUTF8
	case char == '\n' || char == '\r': // only in a text: elsewhere, peek passes over it
		text = "text must end on its line: look for a line break, a backslash, or a missing or curly quote"
	case !unicode.IsPrint(char):
		text = fmt.Sprintf("%#U, perhaps invisible, is not allowed here: remove it, or write a space", char)
	case mergeMark.MatchString(rest):
		text = "a merge conflict: keep the pairings of both versions that still hold, and remove the markers"
	// Not right after a quote: there it is rather text with an unescaped quote in it: "See "//x".
	case comment.MatchString(rest) && !strings.HasSuffix(p.data[:p.at], `"`):
		text = "JSON has no comments: remove this one, and keep a pairing in it only if that still holds"
	case allowed == onlyKey && char == '}':
		at, text = len(before)-1, "no comma is allowed before a closing brace: remove it"
	case allowed == commaOrBrace && keyAndColon.MatchString(rest):
		at, text = len(before), "a comma is missing: write one here"
	case char == ':', // "A": "B": "C", perhaps on two lines
		closes && (allowed == onlyValue || allowed == onlyColon),              // "A": , or "A" }
		allowed == onlyColon && (beginsLine || keyAndColon.MatchString(rest)): // "A" "B": "C"
		text = fmt.Sprintf("something before this %#U is missing, or is one too many: each pairing is "+
			`"CUSTOMER": "AGENT", all of them in one pair of braces`, char)
	case strings.ContainsRune("'`´‘’‚‛“”„‟«»＂＇″′", char):
		text += `; the double quote of JSON is the straight " (U+0022)`
	case strings.HasSuffix(p.data[:p.at], `"`):
		text += "; look for a missing or extra quote, here or before"
	}
	p.stop(at, text)
}

// stop ends the reading: nothing but the end of data is found from here on.
func (p *parser) stop(at int, text string) {
	if !p.stopped {
		p.problems, p.total, p.stopped = []problem{{at, text}}, 1, true
		p.at = len(p.data)
	}
}

// A Number is a phone number in E.164 form, country code first. Only ParseNumber makes one, so it is well
// formed, unless it is Number{}, which stands for none. Whatever prints it shows its last four digits at
// most; Digits returns them all.
type Number struct {
	// The digits as an integer, with every bit inverted. For a Number in an unexported field of another type,
	// fmt ignores Format and prints this integer, so it must not be the phone number.
	inverted uint64
}

// ParseNumber reads a phone number that begins with its country code, written as people do, such as
// +1 (415) 666-7777. Without +, the first digits are taken for the country code only if there are at least 11
// in one piece, or a 1 stands alone in front. The error does not show the number.
func ParseNumber(text string) (Number, error) {
	compact := strings.ReplaceAll(text, " ", "")
	digits := strings.TrimPrefix(separators.Replace(compact), "+")
	bad := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	char, _ := utf8.DecodeRuneInString(digits[max(bad, 0):]) // the bad one, if any
	const fromAbroad = "write + and the number as it is dialled from abroad"
	inOnePiece := len(digits) >= 11 && digits == strings.Trim(text, " ")
	why := ""
	switch {
	case !strings.ContainsFunc(text, unicode.IsDigit):
		why = `it has no digit; each pairing is "CUSTOMER": "AGENT", both of them phone numbers`
	case strings.ContainsAny(compact, ".,eE") && decimal.MatchString(compact):
		why = "it looks like a decimal (14.0, 1.4E+10); write it all, beginning with + and the country code"
	case strings.HasPrefix(digits, "0"),
		strings.Contains(compact, "(0"), strings.Contains(compact, "[0"), strings.Contains(compact, "（0"):
		why = "it begins with 0, or has a 0 in brackets; " + fromAbroad
	case bad >= 0 && !unicode.IsPrint(char):
		why = fmt.Sprintf("it has the invisible character %#U; enter the number again", char)
	case bad >= 0:
		why = fmt.Sprintf("it has the character %#U; write the whole number, no extension or note", char)
	case strings.HasSuffix(compact, ")"):
		why = "it ends with a bracket; write the whole number, no extension or note"
	case !inOnePiece && !strings.Contains(text, "+") && !oneAlone.MatchString(text):
		why = "its country code may be missing; write all of it with + and country code (+1 in North America)"
	case len(digits) < 7 || len(digits) > 15:
		why = "it has " + plural(len(digits), "digit") + "; write 7 to 15, country code included"
	case (digits[0] == '1' || digits[0] == '7') && len(digits) != 11:
		why = "a number that begins with 1 (North America) or 7 (Russia, Kazakhstan) has 11 digits; " +
			"another country's number needs + and its country code in front"
	// The usual number has no 0 there, and is spared the long patterns.
	case strings.Contains(digits[:4], "0") && trunkZero.MatchString(digits) && !keepsZero.MatchString(digits):
		why = "it has a 0 after the country code, dialled only inside the country; " + fromAbroad
	default:
		value, _ := strconv.ParseUint(digits, 10, 64) // 15 digits fit
		return Number{inverted: ^value}, nil
	}
	return Number{}, errors.New(why)
}

// Digits returns the whole number without +, as Plivo sends and takes it; "" for Number{}.
func (n Number) Digits() string {
	if n == (Number{}) {
		return ""
	}
	return strconv.FormatUint(^n.inverted, 10)
}

// String returns the number masked, such as *******7777.
func (n Number) String() string {
	if n == (Number{}) {
		return "none"
	}
	digits := n.Digits()
	return strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]
}

// Format prints the number masked whatever the verb, even %d.
func (n Number) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Patterns of phone numbers and of mistakes in the file.
var (
	// A country code, except Italy's 39, and a 0; and those whose numbers may have one, by libphonenumber.
	trunkZero = regexp.MustCompile(`^([17]|2[07]|3[0-46]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]` +
		`|(2[1-689]|3[578]|42|5[09]|6[7-9]|8[0578]|9[679]).)0`)
	keepsZero   = regexp.MustCompile(`^(225|226|227|229|241|242|250|378|881|992)`)
	separators  = strings.NewReplacer("-", "", ".", "", "(", "", ")", "")
	decimal     = regexp.MustCompile(`^[+]?[0-9()-]+([.,]0+|([.,][0-9]*)?[eE][+]?[0-9]+)$`) // 14.0, 1.4E+10
	oneAlone    = regexp.MustCompile(`^ *1[ .(-]`)                                          // 1-415-666-7777
	bareWord    = regexp.MustCompile(`^[+.(-]*\w[\w+.() -]*`)                               // 5000, null
	mergeMark   = regexp.MustCompile(`^(<{7}|={7}|>{7}|\|{7})`)
	comment     = regexp.MustCompile(`^(//|/\*|#|<!--|-- )`)
	keyAndColon = regexp.MustCompile(`^"[^"\n]*"\s*:`)
)
