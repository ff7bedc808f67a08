package quality

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Private is a piece of a text that looks like private data.
type Private struct {
	Type       string `json:"type"` // email, phone_cn, cn_id, credit_card, iban, ipv4, api_key_…, …
	Match      string `json:"match"`
	Start, End int    `json:"-"`     // bytes
	Valid      bool   `json:"valid"` // false where the form fits but a check sum or a range does not
}

// finder finds one type of private data. The pattern finds the form; fits, where it is set, looks at the match and at
// the characters beside it and says whether the form is really this one; valid checks sums and ranges.
type finder struct {
	kind    string
	pattern *regexp.Regexp
	fits    func(match string) bool
	valid   func(match string) bool
	apart   string // characters that must not stand beside the match
}

const (
	digitsApart = "0123456789"
	wordApart   = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
)

// finders are asked in this order; what one has taken is not looked at by the next.
var finders = []finder{
	{kind: "private_key", pattern: regexp.MustCompile(`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----`)},
	{kind: "jwt", pattern: regexp.MustCompile(`eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+`), apart: wordApart},
	{kind: "api_key_aws", pattern: regexp.MustCompile(`(?:AKIA|ASIA)[0-9A-Z]{16}`), apart: wordApart},
	{kind: "api_key_github", pattern: regexp.MustCompile(`gh[pousr]_[0-9A-Za-z]{36,}`), apart: wordApart},
	{kind: "api_key_hf", pattern: regexp.MustCompile(`hf_[0-9A-Za-z]{30,}`), apart: wordApart},
	{kind: "api_key_google", pattern: regexp.MustCompile(`AIza[\w-]{35}`), apart: wordApart},
	{kind: "api_key_slack", pattern: regexp.MustCompile(`xox[abeoprs]-[0-9A-Za-z-]{10,}`), apart: wordApart},
	{kind: "api_key_openai", pattern: regexp.MustCompile(`sk-(?:proj-)?[\w-]{20,}`), apart: wordApart},
	{kind: "email", pattern: regexp.MustCompile(`[0-9A-Za-z_%+-]+(?:\.[0-9A-Za-z_%+-]+)*@(?:[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?\.)+[A-Za-z]{2,}`)},
	{kind: "iban", pattern: regexp.MustCompile(`[A-Z]{2}\d{2}(?:[0-9A-Z]{11,30}|(?: [0-9A-Z]{4}){2,7}(?: [0-9A-Z]{1,3})?)`), apart: wordApart, valid: iban},
	{kind: "mac", pattern: regexp.MustCompile(`[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}`), apart: wordApart + ":-"},
	{kind: "ipv6", pattern: regexp.MustCompile(`[0-9A-Fa-f]*:[0-9A-Fa-f:]*:(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*)`), apart: wordApart + ":", fits: ipv6},
	{kind: "ipv4", pattern: regexp.MustCompile(`\d+(?:\.\d+)+`), apart: wordApart, fits: ipv4Form, valid: func(m string) bool { _, err := netip.ParseAddr(m); return err == nil }},
	{kind: "cn_id", pattern: regexp.MustCompile(`[1-9]\d{16}[\dXx]`), apart: wordApart, valid: chineseID},
	{kind: "phone_cn", pattern: regexp.MustCompile(`(?:\(\+?86\)|\+?86)?[ -]?\b1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})`), apart: digitsApart},
	{kind: "us_ssn", pattern: regexp.MustCompile(`\d{3}-\d{2}-\d{4}`), apart: digitsApart + "-", valid: socialSecurity},
	{kind: "phone_us", pattern: regexp.MustCompile(`(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}`), apart: digitsApart + "-"},
	{kind: "credit_card", pattern: regexp.MustCompile(`\d(?:[ -]?\d){12,18}`), apart: digitsApart, fits: cardForm, valid: func(m string) bool { return luhn(digitsOf(m)) }},
	{kind: "phone_cn_landline", pattern: regexp.MustCompile(`0\d{2,3}-\d{7,8}`), apart: digitsApart + "-"},
}

// FindPrivate returns what looks like private data in a text, in the order of its places.
func FindPrivate(text string) []Private {
	var out []Private
	taken := func(start, end int) bool {
		return slices.ContainsFunc(out, func(p Private) bool { return start < p.End && p.Start < end })
	}
	for _, f := range finders {
		for _, at := range f.pattern.FindAllStringIndex(text, -1) {
			start, end := at[0], at[1]
			// A blank or a hyphen before a number belongs to the pattern, not to the match.
			for start < end && strings.IndexByte(" -", text[start]) >= 0 && f.kind == "phone_cn" {
				start++
			}
			match := text[start:end]
			switch {
			case taken(start, end),
				start > 0 && strings.IndexByte(f.apart, text[start-1]) >= 0 && text[start] != '(' && text[start] != '+',
				end < len(text) && strings.IndexByte(f.apart, text[end]) >= 0,
				f.fits != nil && !f.fits(match):
				continue
			}
			out = append(out, Private{f.kind, match, start, end, f.valid == nil || f.valid(match)})
		}
	}
	slices.SortFunc(out, func(a, b Private) int { return a.Start - b.Start })
	return out
}

// Redact replaces the valid private data of a text by [TYPE].
func Redact(text string) string {
	var b strings.Builder
	at := 0
	for _, p := range FindPrivate(text) {
		if p.Valid {
			b.WriteString(text[at:p.Start] + "[" + strings.ToUpper(p.Type) + "]")
			at = p.End
		}
	}
	return b.String() + text[at:]
}

func digitsOf(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// cardForm reports whether digits are grouped and begin as card numbers do. Sixteen digits always may be a card;
// other lengths only where the sum is right and an issuer has such numbers, since they may be anything.
func cardForm(match string) bool {
	d := digitsOf(match)
	if strings.ContainsAny(match, " -") {
		groups := strings.FieldsFunc(match, func(r rune) bool { return r == ' ' || r == '-' })
		if len(groups) < 3 || slices.ContainsFunc(groups, func(g string) bool { return len(g) < 3 || len(g) > 7 }) {
			return false
		}
	}
	return len(d) == 16 || d[0] >= '3' && d[0] <= '6' && luhn(d)
}

// luhn checks the sum of a card number.
func luhn(d string) bool {
	sum := 0
	for i := range len(d) {
		n := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum%10 == 0 && strings.Trim(d, "0") != ""
}

// iban checks an account number: its first four characters moved to the end, letters as 10 to 35, give 1 modulo 97.
func iban(match string) bool {
	s := strings.ReplaceAll(match, " ", "")
	if len(s) < 15 || len(s) > 34 {
		return false
	}
	mod := 0
	for _, r := range s[4:] + s[:4] {
		if r >= 'A' {
			mod = (mod*100 + int(r-'A') + 10) % 97
		} else {
			mod = (mod*10 + int(r-'0')) % 97
		}
	}
	return mod == 1
}

// chineseID checks a resident's number: a date of birth and the sum of ISO 7064.
func chineseID(match string) bool {
	if _, err := time.Parse("20060102", match[6:14]); err != nil {
		return false
	}
	sum, weight := 0, 1
	for i := 16; i >= 0; i-- {
		weight = weight * 2 % 11
		sum += int(match[i]-'0') * weight
	}
	return "10X98765432"[sum%11] == strings.ToUpper(match)[17]
}

func socialSecurity(m string) bool {
	return m[:3] != "000" && m[:3] != "666" && m[0] != '9' && m[4:6] != "00" && m[7:] != "0000"
}

// ipv4Form reports whether a dotted number has four parts up to 255.
func ipv4Form(match string) bool {
	parts := strings.Split(match, ".")
	return len(parts) == 4 && !slices.ContainsFunc(parts, func(p string) bool {
		return len(p) > 3 || len(p) == 3 && p > "255"
	})
}

// ipv6 reports whether the match is an address. One without a digit may as well be a name of a program.
func ipv6(match string) bool {
	a, err := netip.ParseAddr(match)
	return err == nil && a.Is6() && strings.ContainsAny(match, digitsApart)
}
