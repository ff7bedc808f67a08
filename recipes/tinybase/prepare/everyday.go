package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// everydayChats is how many chats are made of the wordings: small talk, questions whose answer stands in them, and a
// shop's mail, so that the model knows the words and the form of short answers.
const everydayChats = 6000

// everyday makes chats from the wordings below, always the same ones. Those with few wordings come up often.
func everyday(add func(question, answer string)) {
	rng := rand.New(rand.NewChaCha8([32]byte([]byte("tinybase: chats of every day    "))))
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	makers := []func() (question, answer string){
		func() (string, string) { return shopMail(rng) },
		func() (string, string) { return shopMail(rng) }, // has the most wordings
		func() (string, string) {
			name, colour, item := pick(names), pick(colours), pick(items)
			has := fmt.Sprintf("%s has a %s %s.", name, colour, item)
			switch rng.IntN(4) {
			case 0:
				return has + " What does " + name + " have?", "A " + colour + " " + item + "."
			case 1:
				return has + " What colour is the " + item + "?", "The " + item + " is " + colour + "."
			case 2:
				return has + " Who has the " + item + "?", name + "."
			}
			return "Please repeat: " + has, has
		},
		func() (string, string) {
			item, other := pick(items), pick(items)
			for other == item {
				other = pick(items)
			}
			at, elsewhere := pick(places), pick(places)
			return fmt.Sprintf("The %s is %s and the %s is %s. Where is the %s?", item, at, other, elsewhere, item), fmt.Sprintf("The %s is %s.", item, at)
		},
		func() (string, string) {
			item := pick(items)
			return pick([]string{"Say the word ", "Repeat the word ", "Please say "}) + item + ".", item
		},
		func() (string, string) {
			a, b := rng.IntN(20), rng.IntN(20)
			switch rng.IntN(3) {
			case 0:
				return fmt.Sprintf("What is %d plus %d?", a, b), fmt.Sprintf("%d plus %d is %d.", a, b, a+b)
			case 1:
				return fmt.Sprintf("What is %d minus %d?", a+b, b), fmt.Sprintf("%d minus %d is %d.", a+b, b, a)
			}
			return fmt.Sprintf("Which number comes after %d?", a*b), fmt.Sprintf("%d.", a*b+1)
		},
		func() (string, string) {
			list := orders[rng.IntN(len(orders))]
			i := rng.IntN(len(list) - 1)
			if rng.IntN(2) == 0 {
				return "What comes after " + list[i] + "?", list[i+1] + "."
			}
			return "What comes before " + list[i+1] + "?", list[i] + "."
		},
		func() (string, string) {
			pair := strings.Split(pick(opposites), " ")
			i := rng.IntN(2)
			return "What is the opposite of " + pair[i] + "?", pair[1-i]
		},
		func() (string, string) {
			kind := kinds[rng.IntN(len(kinds))]
			thing := pick(kind.things)
			switch rng.IntN(3) {
			case 0:
				return "What is a " + thing + "?", "A " + thing + " is " + kind.name + "."
			case 1:
				return "Is a " + thing + " " + kind.name + "?", "Yes, a " + thing + " is " + kind.name + "."
			}
			other := kinds[rng.IntN(len(kinds))].name
			if other == kind.name {
				return "Name " + kind.name + ".", "A " + thing + "."
			}
			return "Is a " + thing + " " + other + "?", "No, a " + thing + " is " + kind.name + "."
		},
		func() (string, string) {
			talk := smallTalk[rng.IntN(len(smallTalk))]
			return pick(talk.questions), pick(talk.answers)
		},
	}
	for i := range everydayChats {
		question, answer := makers[i%len(makers)]()
		add(vowel.ReplaceAllString(question, "${1}n $2"), vowel.ReplaceAllString(answer, "${1}n $2"))
	}
}

// vowel is where the article is an.
var vowel = regexp.MustCompile(`\b([Aa]) ([aeiou])`)

// shopMail is a customer's message with a polite answer.
func shopMail(rng *rand.Rand) (question, answer string) {
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	topic := mail[rng.IntN(len(mail))]
	item := pick(items)
	question = strings.TrimSpace(pick(openings) + " " + pick(topic.questions) + " " + pick(closings))
	fill := strings.NewReplacer("{item}", item, "{days}", fmt.Sprint(2+rng.IntN(8)), "{name}", pick(names), "{colour}", pick(colours))
	return fill.Replace(question), fill.Replace(pick(topic.answers))
}

type talk struct{ questions, answers []string }

var (
	names     = []string{"Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mary", "Nora", "Oscar", "Paul", "Rosa", "Sam", "Tina", "Will"}
	colours   = []string{"red", "blue", "green", "yellow", "black", "white", "brown", "grey", "pink", "orange"}
	places    = []string{"on the table", "under the bed", "in the kitchen", "behind the door", "in the garden", "at the office", "in the car", "on the shelf", "next to the window", "in the box"}
	openings  = []string{"", "", "", "Hello.", "Hi.", "Good day.", "Hello there.", "Good afternoon."}
	closings  = []string{"", "", "", "Thanks.", "Thank you.", "Can you help me?", "Please answer soon.", "Yours, {name}."}
	items     = strings.Fields("lamp kettle chair table jacket radio bike tent watch camera printer toaster bag blender phone keyboard mirror carpet sofa monitor umbrella heater guitar drill clock book cup plate shirt coat hat shoe ball doll bed pillow blanket knife spoon pan bottle box key ring bell brush broom bucket ladder hammer saw rope candle basket curtain desk fan fridge oven sink tap towel soap pen pencil ruler stamp tray vase wallet helmet skate piano drum flute kite puzzle speaker charger cable mouse screen tablet")
	opposites = []string{"hot cold", "big small", "old new", "long short", "up down", "open closed", "full empty", "early late", "fast slow", "light dark", "rich poor", "hard soft", "high low", "left right", "happy sad", "wet dry", "good bad", "loud quiet", "near far", "first last", "strong weak", "thick thin", "clean dirty", "cheap dear", "day night", "true false"}
	orders    = [][]string{
		{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"},
		{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"},
		{"spring", "summer", "autumn", "winter"},
		{"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"},
		{"first", "second", "third", "fourth", "fifth", "sixth"},
	}
	kinds = []struct {
		name   string
		things []string
	}{
		{"an animal", strings.Fields("dog cat horse cow sheep lion bear bird fish mouse")},
		{"a plant", strings.Fields("rose tree tulip fern cactus daisy")},
		{"a tool", strings.Fields("hammer saw drill ladder brush")},
		{"a piece of furniture", strings.Fields("chair table sofa bed desk shelf")},
		{"a fruit", strings.Fields("pear plum cherry lemon banana peach")},
		{"a piece of clothing", strings.Fields("shirt coat hat jacket scarf dress")},
		{"a vehicle", strings.Fields("car bus train ship truck bike")},
	}
)

var smallTalk = []talk{
	{[]string{"Hello!", "Hi!", "Good morning!", "Hi there, how are you?"}, []string{"Hello! How can I help you?", "Hi! What can I do for you?", "Hello! I am well, thank you."}},
	{[]string{"Who are you?", "What are you?", "What is your name?", "Are you a person?"}, []string{"I am a small language model.", "I am tinybase, a very small language model."}},
	{[]string{"Thank you!", "Thanks a lot.", "That was helpful."}, []string{"You are welcome!", "I am glad to help."}},
	{[]string{"Goodbye!", "Bye!", "See you later."}, []string{"Goodbye!", "Have a nice day!"}},
	{[]string{"What can you do?", "Can you help me?", "What do you know?"}, []string{"I can answer short questions, but I know little.", "I am very small and make many mistakes."}},
}

// mail is by topic what customers write to a shop. The demo's messages are worded in other ways.
var mail = []talk{
	{[]string{
		"The {item} does not fit, how do I get my money?", "When is the refund paid?", "Do you refund a {item} that was opened?",
		"I gave back a {item} in your shop and had no money yet.", "Is there a refund if I bring the {item} back?",
		"I was promised a refund {days} days ago.", "I would rather have my money than another {item}.", "You took the money twice for one {item}.",
	}, []string{
		"We are sorry. The money will be on your account within {days} days.", "Yes, we pay your money back as soon as the {item} is here.",
		"Your refund is on its way and takes up to {days} days.",
	}},
	{[]string{
		"I ordered a {item} {days} days ago and it is still not here.", "On what day does my {item} come?", "The courier rang at the wrong house with my {item}.",
		"Can the parcel be left with a neighbour?", "The tracking number of my {item} is not known.", "My delivery has been on its way for {days} days.",
		"What does shipping of a {item} cost?", "Did the parcel get lost?",
	}, []string{
		"Your parcel is on its way and should be there in {days} days.", "We are sorry for the late delivery. The driver comes again tomorrow.",
		"You can track the parcel with the number in our mail.",
	}},
	{[]string{
		"The password that I chose is not taken.", "I get no mail to set a new password.", "My login was locked after three tries.",
		"How can I sign in without a password?", "Somebody has changed the password of my account.", "I do not remember with which name I log in.",
		"The account page logs me out all the time.", "Where do I change the password?",
	}, []string{
		"Please use the link on the login page to set a new password.", "We have unlocked your account, please try to sign in again.",
		"We have sent you a mail with a new password.",
	}},
	{[]string{
		"The bill for the {item} is missing.", "Please write our company's name on the invoice.", "I need a receipt with the tax on it.",
		"Could the invoice come by mail?", "Is there an invoice for my order of {days} days ago?", "The sum on my receipt is not right.",
		"We cannot book the {item} without an invoice.", "Which tax is on the bill of a {item}?",
	}, []string{
		"You find all invoices in your account, under orders.", "We have corrected the invoice and sent it to you.",
		"The receipt for the {item} is in the mail.",
	}},
	{[]string{
		"I do not need the {item} after all, can the order be stopped?", "Please take the {item} off my order.", "May I cancel within {days} days?",
		"I clicked twice, cancel one {item}.", "My order was a mistake.", "I would like to cancel what I bought this morning.",
		"Somebody else gave me a {item}, so I cancel mine.", "Can one cancel an order by phone?",
	}, []string{
		"We have stopped your order, there is nothing to pay.", "Your order of the {item} is cancelled.",
		"Orders can be cancelled until the parcel leaves our house.",
	}},
	{[]string{
		"The {item} does not work.", "There is a crack in my {item}.", "After {days} days the {item} broke.", "Who can fix a {item}?",
		"A screw of the {item} is missing.", "My {item} was damaged when I opened the box.", "The {item} gets hot and smells of smoke.",
		"Do you have spare parts for an old {item}?",
	}, []string{
		"We are sorry. Please send the {item} in, we repair it at no cost.", "Our workshop can fix the {item} in {days} days.",
		"We send you the missing part.",
	}},
	{[]string{
		"Do you have a {colour} {item}?", "Will you get the {item} in {colour} again?", "How many {item}s are left?", "I could not find the {item} in your shop.",
		"Are there smaller ones of the {item}?", "Which {item} do you have for a child?", "The shop says that the {item} is sold out.",
		"Do you also sell a {colour} {item}?",
	}, []string{
		"Yes, we have the {item} in {colour}.", "The {item} is sold out, but it will be in stock again in {days} days.",
		"We have three of the {item} left.",
	}},
	{[]string{
		"We live in another house now.", "Please take my new street into your list.", "My address is not right in your mail.",
		"The {item} should go to my work instead.", "The town in my address is wrong.", "I move in {days} days, where do I tell you?",
		"Can I have two addresses in my account?", "The number of our house has changed.",
	}, []string{
		"Thank you, we have changed your address.", "You can change the address in your account, under my data.",
		"We will send the {item} to the new address.",
	}},
	{[]string{"When are you open?", "Is the shop open on Sunday?"}, []string{"We are open from Monday to Saturday, from nine to six."}},
	{[]string{"Do you have a shop in town?", "Where can I park?"}, []string{"Our shop is next to the station."}},
	{[]string{"What is the price of the {item}?", "Is there a discount on the {item}?"}, []string{"The price of the {item} is on our page."}},
	{[]string{"Can I pay the {item} later?", "Do you take cards?"}, []string{"You can pay by card or by bank."}},
}
