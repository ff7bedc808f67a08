package jinja

import (
	"fmt"
	"strings"
	"time"
)

// strftime formats t as C does in the C locale. Flags - _ 0 ^ after the % are GNU's.
func strftime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 >= len(format) {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		flag := byte(0)
		if strings.IndexByte("-_0^", format[i]) >= 0 && i+1 < len(format) {
			flag = format[i]
			i++
		}
		s, ok := timeField(t, format[i], flag)
		if !ok {
			s = format[start : i+1]
		}
		if flag == '^' {
			s = strings.ToUpper(s)
		}
		b.WriteString(s)
	}
	return b.String()
}

func timeField(t time.Time, field, flag byte) (string, bool) {
	number := func(n, width int, pad byte) (string, bool) {
		switch flag {
		case '-':
			pad = 0
		case '_':
			pad = ' '
		case '0':
			pad = '0'
		}
		switch pad {
		case '0':
			return fmt.Sprintf("%0*d", width, n), true
		case ' ':
			return fmt.Sprintf("%*d", width, n), true
		}
		return fmt.Sprint(n), true
	}
	hour12 := (t.Hour()+11)%12 + 1
	weekday := int(t.Weekday())
	isoYear, isoWeek := t.ISOWeek()
	switch field {
	case 'a', 'A', 'b', 'h', 'B', 'p', 'P':
		layout := map[byte]string{'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'p': "PM", 'P': "pm"}[field]
		return t.Format(layout), true
	case 'd':
		return number(t.Day(), 2, '0')
	case 'e':
		return number(t.Day(), 2, ' ')
	case 'm':
		return number(int(t.Month()), 2, '0')
	case 'y':
		return number(t.Year()%100, 2, '0')
	case 'Y':
		return number(t.Year(), 4, 0)
	case 'C':
		return number(t.Year()/100, 2, '0')
	case 'H':
		return number(t.Hour(), 2, '0')
	case 'k':
		return number(t.Hour(), 2, ' ')
	case 'I':
		return number(hour12, 2, '0')
	case 'l':
		return number(hour12, 2, ' ')
	case 'M':
		return number(t.Minute(), 2, '0')
	case 'S':
		return number(t.Second(), 2, '0')
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000), true
	case 'j':
		return number(t.YearDay(), 3, '0')
	case 'u':
		return fmt.Sprint((weekday+6)%7 + 1), true
	case 'w':
		return fmt.Sprint(weekday), true
	case 'U':
		return number((t.YearDay()+6-weekday)/7, 2, '0')
	case 'W':
		return number((t.YearDay()+6-(weekday+6)%7)/7, 2, '0')
	case 'V':
		return number(isoWeek, 2, '0')
	case 'G':
		return number(isoYear, 4, 0)
	case 'g':
		return number(isoYear%100, 2, '0')
	case 's':
		return fmt.Sprint(t.Unix()), true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case '%':
		return "%", true
	case 'z', 'Z': // a time without zone, as Python's datetime.now() is
		return "", true
	}
	if whole := map[byte]string{
		'c': "%a %b %e %H:%M:%S %Y", 'D': "%m/%d/%y", 'x': "%m/%d/%y", 'F': "%Y-%m-%d",
		'R': "%H:%M", 'T': "%H:%M:%S", 'X': "%H:%M:%S", 'r': "%I:%M:%S %p",
	}[field]; whole != "" {
		return strftime(t, whole), true
	}
	return "", false
}
