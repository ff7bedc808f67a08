package ifeval

import (
	"strings"
	"unicode"
)

// scripts are writings that one language, or mostly one, uses.
var scripts = []struct {
	table *unicode.RangeTable
	code  string
}{
	{unicode.Hangul, "ko"},
	{unicode.Thai, "th"},
	{unicode.Hebrew, "he"},
	{unicode.Greek, "el"},
	{unicode.Bengali, "bn"},
	{unicode.Tamil, "ta"},
	{unicode.Telugu, "te"},
	{unicode.Kannada, "kn"},
	{unicode.Gujarati, "gu"},
	{unicode.Gurmukhi, "pa"},
	{unicode.Malayalam, "ml"},
	{unicode.Hiragana, "ja"},
	{unicode.Katakana, "ja"},
	{unicode.Devanagari, "hi"},
	{unicode.Arabic, "ar"},
	{unicode.Cyrillic, "ru"},
	{unicode.Han, "zh"},
	{unicode.Latin, "en"},
}

// common are frequent words of languages that share a script; the letters of marks are found in these alone.
var common = map[string]struct{ words, marks string }{
	"en": {"the of and to in is that it for was on are as with his they at be this have from or had by but not what all were we when your can said there use an each which she do how their if will you he i a go my me so", ""},
	"de": {"der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über ich wir du", "ßäöü"},
	"fr": {"de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec son cette ou mais nous je vous elle très c'est être", "çèêàùœîâ"},
	"es": {"de la que el en y a los del se las por un para con no una su al lo como más pero sus le ya o este sí porque esta entre cuando muy sin sobre también es está hay yo", "ñ¿¡"},
	"pt": {"de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem à seu sua ou ser quando muito há nos já está eu também só pelo você são", "ãõ"},
	"it": {"di e il la che in un per è una non con del da sono si le al come anche più ma dei nel alla i lo gli della questo ha io molto essere o mi tutto", "ìò"},
	"nl": {"de en van ik te dat die in een hij het niet zijn is was op aan met als voor had er maar om hem dan zou of wat mijn men dit zo door over ze zich bij ook tot je wij", ""},
	"pl": {"i w nie na z do to się że jest o jak po co ale za od tak przez dla ma jego czy już lub może tylko są być był bardzo ja ten", "łąęśżźćń"},
	"fi": {"ja on ei se että hän oli en mutta ole olen tämä kun niin ovat minä mitä myös voi kuin sen olla jos joka sinä me te he hyvä hyvin", ""},
	"sv": {"och i att det som en på är av för med till den han var jag inte om ett hade de men vi så har från kan du ni hon mycket", "å"},
	"da": {"og i at det er en på som af til med for ikke den der de jeg et han men var om har vi fra kan så meget du", "æø"},
	"tr": {"ve bir bu da de için ile çok ne gibi daha ben o ama en var olarak kadar değil mi her sonra biz şey olan", "ığş"},
	"vi": {"và của là không có một những cho trong được với người này đã các tôi đến để khi rất như về ra anh cũng", "đơưạảấầẩậắằẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ"},
	"sw": {"na ya wa kwa ni katika za la kama hii hiyo huo watu lakini au yake sana mimi wewe yeye sisi kuwa siku leo nzuri cha vya", ""},
	"id": {"yang dan di dengan untuk tidak ini dari dalam akan pada juga saya ke karena itu ada mereka bisa kami adalah sangat anda", ""},
	"ro": {"și de la în nu a cu o să pe din este mai care pentru ce sunt fi dar am un se foarte eu", "țșă"},
	"cs": {"a se v na je že to s z do o i jako za by ve ale si po k pro jsem jsou ten velmi já nebo", "řůě"},
	"ru": {"и в не на я что он с как это по но они к у за из мы вы она так от быть для очень", "ыэё"},
	"uk": {"і в не на я що він з як це по але вони до у за ми ви вона так від бути для дуже та", "іїєґ"},
	"bg": {"и в не на аз че той с как това по но те към за от ние вие тя е да се са са много", "ѝ"},
	"ar": {"في من على إلى أن هذا التي الذي ما لا مع عن كان هو هي يوم جدا أنا", "ةأإى"},
	"fa": {"در از به که این را با است برای آن یک تا می بر هم ما من خود روز بسیار و", "پچژگکی"},
	"ur": {"کے میں کی ہے اور سے کا کو پر نے یہ ہیں ایک بہت وہ ہم آپ تھا دن", "ٹڈڑےںہ"},
	"hi": {"के में की है और से का को पर ने यह हैं एक बहुत वह हम आप था दिन रहे जा नहीं भी", ""},
	"mr": {"आहे आणि या मध्ये च ला ने हे ते एक खूप मी तो ती नाही आहेत होते दिवस", "ळ"},
	"ne": {"छ र को मा ले हो यो एक धेरै म उनी छन् थियो भएको गर्न दिन छैन हुन्छ", ""},
}

// groups are the languages of common by script.
var groups = map[string][]string{
	"en": {"en", "de", "fr", "es", "pt", "it", "nl", "pl", "fi", "sv", "da", "tr", "vi", "sw", "id", "ro", "cs"},
	"ru": {"ru", "uk", "bg"},
	"ar": {"ar", "fa", "ur"},
	"hi": {"hi", "mr", "ne"},
}

// Language tells in which language a text is written, by its script, its frequent words and its letters; known is false
// for a text without letters, and code is empty for one that says too little. Short texts are guesses: these are no profiles of letters, as langdetect has them.
func Language(text string) (code string, known bool) {
	counts := map[string]int{}
	for _, r := range text {
		for _, s := range scripts {
			if unicode.Is(s.table, r) {
				counts[s.code]++
				break
			}
		}
	}
	if counts["ja"] > 0 { // Japanese writes Chinese characters between its own
		counts["ja"] += counts["zh"]
	}
	for _, s := range scripts {
		if counts[s.code] > counts[code] {
			code = s.code
		}
	}
	if code == "" {
		return "", false
	}
	lower := strings.ToLower(text)
	best := 0.0
	script := code
	fields := strings.FieldsFunc(lower, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) && r != '\'' })
	for _, language := range groups[script] {
		c := common[language]
		score := 0.0
		known := set(c.words)
		for _, w := range fields {
			if known[w] {
				score++
			}
		}
		for _, r := range lower {
			if strings.ContainsRune(c.marks, r) {
				score += 0.5
			}
		}
		if score > best {
			code, best = language, score
		}
	}
	if script == "en" && best == 0 && len(fields) < 3 {
		return "", true // a word or two in Latin letters
	}
	return code, true
}
