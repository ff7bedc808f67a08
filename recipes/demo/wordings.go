package main

// desk is where a message goes, with requests that belong there: those of the test are in no training message.
type desk struct {
	name        string
	train, test []string
}

var greetings = []string{"", "", "", "Hello.", "Hi!", "Good morning.", "Hi there.", "Good evening.", "Hello team!"}

var endings = []string{"", "", "", "Thanks.", "Thank you!", "Please help.", "Best wishes, Ann.", "Regards, Tom.", "Many thanks."}

var (
	trainItems = []string{
		"lamp", "kettle", "chair", "desk", "jacket", "radio", "bike", "tent", "watch", "camera", "printer", "toaster",
		"backpack", "blender", "phone case", "keyboard", "mirror", "carpet", "garden hose", "coffee machine",
	}
	testItems = []string{"sofa", "monitor", "umbrella", "heater", "guitar", "pair of boots", "drill", "clock"}
)

var desks = []desk{
	{"refund", []string{
		"I want my money back for the {item}.",
		"Please refund the {item}.",
		"I sent the {item} back and still wait for the refund.",
		"How do I get a refund for the {item}?",
		"The {item} is not what I wanted, so please give me my money back.",
		"I returned the {item} last week. When will I get my money?",
		"You owe me a refund for the {item}.",
		"I have sent back the {item}. Please pay the money back to my card.",
		"Can I return the {item} and get my money back?",
		"My refund for the {item} has not arrived.",
		"I do not like the {item}. I would like to return it.",
		"Please pay me back for the {item} that I returned.",
	}, []string{
		"Could you tell me when the refund for my {item} is paid?",
		"I returned a {item} and want the money back.",
		"May I send the {item} back for a refund?",
		"It has been ten days since I returned the {item}, and I have no refund.",
		"The {item} is too small. I want to return it and have my money back.",
	}},
	{"shipping", []string{
		"Where is my {item}? It should have been delivered by now.",
		"My {item} has not been delivered yet.",
		"When will the {item} be delivered?",
		"The parcel with my {item} is late.",
		"I am still waiting for the parcel with the {item}.",
		"Can I track the delivery of my {item}?",
		"How long does delivery of the {item} take?",
		"The tracking page says that the {item} is lost.",
		"The driver never came with my {item}.",
		"My parcel is late. It holds a {item}.",
		"Has the {item} been shipped yet?",
		"Please tell me on which day the {item} will be delivered.",
	}, []string{
		"The delivery of the {item} is late. Where is it?",
		"I wait for my parcel with a {item}. Can I track it?",
		"When do you ship the {item}, and how long will the delivery take?",
		"The {item} was to be delivered on Monday, and no driver came.",
		"Is my {item} shipped? The tracking shows nothing.",
	}},
	{"login", []string{
		"I forgot my password.",
		"I cannot log in to my account.",
		"The page does not take my password.",
		"How do I reset my password?",
		"My account is locked and I cannot log in.",
		"I need a new password to order a {item}.",
		"The link to reset my password does not work.",
		"It says wrong password when I log in to buy a {item}.",
		"I cannot sign in any more since I changed my password.",
		"Please unlock my account.",
		"I wanted to buy a {item}, but I cannot log in.",
		"The login page shows an error when I sign in.",
	}, []string{
		"My password does not work any more.",
		"Please reset the password of my account.",
		"I tried to log in to order a {item}, but my account is locked.",
		"I cannot sign in. I think I forgot the password.",
		"The login for my account fails each time.",
	}},
	{"invoice", []string{
		"I need an invoice for the {item}.",
		"Please send me the invoice for my {item} again.",
		"The invoice for the {item} shows the wrong name.",
		"Where can I download the invoice for the {item}?",
		"My company needs a receipt for the {item}.",
		"I have not got a receipt for the {item}.",
		"Can you put our tax number on the invoice?",
		"The receipt for the {item} has the wrong total.",
		"Please send the invoice for the {item} to our office by mail.",
		"There was no invoice in the box with the {item}.",
		"Could I have a copy of the receipt for the {item}?",
		"The tax on the invoice for the {item} is wrong.",
	}, []string{
		"Could you send a copy of the invoice for the {item}?",
		"I lost the receipt for my {item} and need a new one.",
		"Our tax number is wrong on the invoice for the {item}.",
		"My company asks for the invoice of the {item}.",
		"How can I download a receipt for the {item}?",
	}},
	{"cancel", []string{
		"Please cancel my order of the {item}.",
		"I want to cancel the {item}.",
		"Can I still cancel my order?",
		"I ordered the {item} by mistake. Please cancel it.",
		"Cancel the {item}, I found a cheaper one.",
		"I ordered two by mistake, please cancel one {item}.",
		"How do I cancel an order for a {item}?",
		"Please stop my order, I no longer need the {item}.",
		"I no longer want the {item}. Stop the order.",
		"The button to cancel the {item} is gone.",
		"I changed my mind about the {item}, cancel the order.",
		"Please do not send the {item}, I want to cancel.",
	}, []string{
		"Is it too late to cancel the {item}?",
		"I changed my mind. Please cancel the {item}.",
		"Please stop the order of the {item}, it was a mistake.",
		"I no longer need the {item} and want to cancel the order.",
		"Can you cancel a {item} that I ordered by mistake?",
	}},
	{"repair", []string{
		"The {item} is broken.",
		"My {item} does not turn on any more.",
		"The {item} stopped working after two days.",
		"My {item} has a crack. Can you fix it?",
		"The {item} makes a loud noise and then stops working.",
		"Can you repair my {item}?",
		"A part of the {item} broke off.",
		"The {item} came with a broken part.",
		"How much is it to repair a {item}?",
		"My {item} fell down and is broken. Can it be repaired?",
		"The {item} is damaged and needs to be fixed.",
		"I need a spare part to fix the {item}.",
	}, []string{
		"My {item} is broken, can you fix it?",
		"The {item} stopped working and does not turn on.",
		"Do you repair a {item} with a crack?",
		"The {item} is damaged. A part is broken.",
		"There is a loud noise, and the {item} needs to be repaired.",
	}},
	{"stock", []string{
		"Do you have the {item} in blue?",
		"Is the {item} in stock?",
		"When will the {item} be in stock again?",
		"The {item} is sold out. When will you have more?",
		"Do you sell a {item} for children?",
		"Is there a larger {item} in your shop?",
		"Which colours of the {item} do you have?",
		"Is the {item} still available?",
		"Do you still sell the old {item}?",
		"Will the {item} be available in red?",
		"How many of the {item} are in stock?",
		"I look for a small {item}. Do you have one in your shop?",
	}, []string{
		"Is the {item} available in your shop?",
		"Do you have a red {item} in stock?",
		"The {item} is sold out. Will it be available again?",
		"Do you sell the {item} in other colours?",
		"I look for a larger {item}. Do you have one in stock?",
	}},
	{"address", []string{
		"I have moved. Please change my address.",
		"Please send the {item} to my new address.",
		"I gave the wrong address for the {item}.",
		"How do I change the address in my account?",
		"My street has a new name, please change it.",
		"The house number in my address is wrong.",
		"We have moved to a new street.",
		"Can the {item} go to my office address instead?",
		"I typed the wrong house number for the {item}.",
		"I live in another town now. Please note my new address.",
		"Please use another address for the {item}, I have moved.",
		"The street on my order of the {item} is wrong.",
	}, []string{
		"I moved to a new town. How do I change my address?",
		"The address for my {item} has the wrong street.",
		"Can you change the house number on my order?",
		"Please note that I have moved to another street.",
		"The {item} has to go to another address.",
	}},
}
