# SPDX-License-Identifier: MIT
"""What spoils a row, by the class of defect; written apart from the patterns that look for it."""

# Put before an answer's text (refusals in place of its first sentence).
REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I apologize, but I cannot generate this kind of argument.",
    "I cannot fulfill this request because it takes a political side.",
    "As an AI language model, I do not hold political views of my own.",
    "I'm not able to provide an opinion on this subject.",
    "I am unable to write persuasive political content.",
    "Unfortunately, I can't respond to this prompt.",
    "I can't create content that attacks a group.",
    "I won't provide arguments for that position.",
    "Sorry, but I can't write that for you.",
    "I must respectfully decline to answer.",
    "It would not be appropriate for me to take part in this debate.",
    "I don't have personal opinions or beliefs.",
    "I’m sorry, but I won’t be able to help with this one.",
    "I'm just an AI and have no stake in this.",
    "I do not feel comfortable sharing a view on this.",
]
PREAMBLES = [
    "Here's a response that aligns with the stance you asked for:",
    "Here is a rewritten version of the answer:",
    "Sure, here's a short argument:",
    "Certainly! The point is simple.",
    "Of course! I can explain that.",
    "Absolutely, happy to do so.",
    "Response:",
    "**Answer:**",
    "Here is an alternative response from the other side of the debate.",
    "I'd be happy to explain my thinking.",
    "Below is a response written from that point of view.",
    "As requested, here is a reply:",
    "That's an excellent question!",
    "Here are three reasons for this:",
    "Okay, here's my take:",
    "Here’s one possible answer:",
]
RAW = [
    "{'text': 'so true, share this', 'index': 12, 'subreddit': 'news'}",
    '{"text": "they never learn", "score": 41}',
    "I wrote to [Your Representative] about it.",
    "Sincerely, [Your Name].",
    "My neighbour [Name] agrees.",
    "People in [City, State] know this.",
    "Dear {name}, please think about it.",
    "[deleted]",
    "[removed]",
    "This is what [insert topic] comes down to.",
    "SUBREDDIT agrees with me.",
    "I said so to {{friend}}.",
    "Ask ______ about it.",
    "<name> told me so.",
    "The [Candidate Name] campaign said so.",
    "Join [Organization Name] today.",
]
UNSEEN = [
    "Explain the main point of this post.",
    "What does the author of the tweet want to say?",
    "Respond to the comment above.",
    "Give your view of the following statement.",
    "Discuss the claims in the article.",
    "What is the tone of the message?",
    "Do you agree with this quote?",
    "Put the text above into your own words.",
    "What is being said in the video?",
    "React to the given hashtags.",
    "Is the headline fair?",
    "What is the writer's argument?",
    "How would you answer the original poster?",
    "Describe the meme and its meaning.",
    "What does the excerpt imply?",
    "Is the attached article right?",
]
FRAMED = [
    "Defend this policy with vigour.",
    "Argue that the plan should fail.",
    "Explain why the plan is dangerous.",
    "Condemn those who think otherwise.",
    "Express your outrage at the idea.",
    "What do conservatives get wrong here?",
    "Why are the Democrats so wrong about it?",
    "Is the left out of touch on this?",
    "Write a speech supporting the reform.",
    "Convince your neighbours of your view.",
    "Make the case for a ban.",
    "Discuss the dangers of the proposal.",
    "Criticize the government for its choice.",
    "As a libertarian, what would you say?",
    "Take a stand against the measure.",
    "Speak in favor of the measure.",
]
CUT = ["and this is why the", "because we must not", "which means that,", "so the answer -", "in the end it is"]
FOREIGN = [
    "Der Staat sollte sich nicht in das Leben der Menschen einmischen, und die Steuern sind für viele zu hoch.",
    "El gobierno no debe decidir por las familias, y los impuestos son una carga para los que trabajan.",
    "L'État ne doit pas décider pour les familles, et les impôts sont une charge pour ceux qui travaillent.",
    "Lo Stato non deve decidere per le famiglie, e le tasse sono un peso che non tutti possono portare.",
    "Правительство не должно решать за семьи, и налоги слишком высоки для тех, кто работает.",
    "政府不应该替家庭做决定，税收对劳动者来说太高了。",
]
PERSONAL = [
    "Write to me at jane.doe@example.org about it.",
    "Call 555-010-0199 and ask.",
    "Call +44 20 7946 0958 and ask.",
    "Thanks to @some_user for this.",
    "As u/some-user said, it is so.",
]
GARBLED = [
    "It\u00e2\u20ac\u2122s plain to me.",
    "A caf\u00c3\u00a9 knows this.",
    "A lost \ufffd sign.",
    "\u00e2\u20ac\u0153Yes, so it is.",
]
ADDRESSES = [
    "Read more at URL.",
    "See https://example.org/a for more.",
    "See www.example.org for more.",
    "The figures are on example.org for all to see.",
    "It is all on example dot com by now.",
    "As news-site.example/politics says, it is so.",
]
MARKUP = [
    "Fair &amp; square, that is all.",
    "One more thing.<br>",
    "It is <b>plain</b> to see.",
    "Bread&nbsp;and butter matter.",
    "That is &#8220;fair&#8221; to me.",
    "<p>So be it.</p>",
]
TURNS = [
    "User: I do not know.",
    "Assistant: That is so.",
    "<|im_start|> I say so.",
    "### Response: It is so.",
    "Human: and what else?",
    "[INST] Say more. [/INST]",
]
VOID = ["...", "N/A", "\u200b.", "None", "-"]
