"""Which recorded pairs of the pool `tone` are left out, because the sentence behind the plain message does not
fit it: a rich one shows something of another matter, or a text contradicts itself or turns the two people around.

The patterns were written while reading the first 400 recorded pairs. A pair that is left out keeps its number,
so that the others keep theirs.
"""

import re

SCENES = {
    "the flowers": r"flower|bloom|petal|vase|ros(e|es)\b|scent|fragran|smell|colou?r",
    "the dinner": r"food|dish|meal|wine|tast|smell|delicious|cook|candle|table\b",
    "the book": r"book|page|cover|read|story|stories|shelf|letters|picture",
    "the help with the move": r"box|room|house|furniture|stairs|\bvan\b|\bcar\b|apartment|heavy",
    "the lift to the station": r"\bcar\b|road|\brid(e|ing)|train|station|seat|engine|driv|platform|rain",
    "the photos": r"photo|picture|image|colou?r|smil|album|frame|face|light",
    "the train is late": r"train|station|platform|rail|bell|passenger|crowd|track|wait",
    "the parcel has arrived": r"box|package|parcel|paper|wrap|ribbon|door|card|letter",
    "the meeting is moved to Friday": r"meeting|office|room|table|clock|coffee|calendar|agenda",
    "the shop is closed on Monday": r"shop|store|closed|shut|sign|dark|street|shelves|shutter",
    "the soup is ready": r"soup|bowl|smell|tast|steam|pot\b|warm|hot\b|vegetable|spoon|bread|delicious",
    "the keys are on the table": r"key|ring|metal|silver|gold|brass|shin",
    "the concert starts at eight": r"music|stage|sound|band|hall|crowd|seat|song|audience|lights|sing",
    "the cat is well again": r"\bcat\b|fur|purr|paw|tail|whisker|eyes|sleep|play|bowl|sofa|meow",
    "the lesson is cancelled": r"lesson|class|room|teacher|school|board|student|book|desk|chairs",
    "the heating works again": r"warm|heat|radiator|\bhot\b|pipe|cosy|cozy|temperature|fire\b",
    "a happy birthday": r"cake|candle|balloon|gift|present|flower|part(y|ies)|music|sun|song|laugh|friend",
    "good luck in the exam": r"exam|paper|\bpen\b|desk|book|question|test\b|room|clock|class|pencil|page",
    "a safe journey": r"road|sky|star|sun|moon|train|sea\b|wind|weather|path|mountain|ride|rain|plane|ship",
    "a quick recovery": r"\bbed\b|tea\b|soup|flower|garden|rest\b|sleep|pillow|blanket|doctor|hospital|sun",
    "a nice holiday": r"sun|sea\b|beach|sand|sky|star|snow|food|mountain|weather|water|lake|night|music",
    "being late": r"traffic|train|\bbus\b|\bcar\b|road|street|rain|clock|snow|station|alarm|meeting|late",
    "the noise last night": r"music|loud|nois|part(y|ies)|sound|dog|bark|neighbou?r|door|drum|sleep|wall|window",
    "the broken cup": r"\bcup|glass|piece|floor|handle|crack|table|shatter|broke|shard|tea\b|coffee",
    "the missed call": r"call|phone|ring|bell|battery|number|voice|line",
    "the late reply": r"reply|letter|mail|inbox|work|busy|desk|phone|computer|answer|hour|week",
    "the mistake in the bill": r"bill|number|sum|price|amount|paper|total|cost|pay|charge|digit|error",
    "dinner on Saturday": r"food|dish|meal|wine|restaurant|tast|smell|delicious|candle|cook|kitchen|table",
    "a picnic in the park": r"picnic|grass|tree|blanket|sandwich|basket|park|bird|food|sun|flower|lemonade|fruit|lake",
    "a walk by the river": r"river|water|tree|bird|boat|path|bank|wave|leaves|sun|flower|fish|bridge|stream",
    "a birthday party": r"cake|candle|balloon|gift|music|food|drink|danc|decorat|garden|guest|games?\b|song",
    "a cup of tea": r"\btea\b|cup|kettle|pot\b|biscuit|cake|cookie|smell|honey|lemon|steam|garden|milk",
    "the summer concert": r"music|stage|sound|band|crowd|song|seat|lights|sing|danc|guitar|park|night",
    "water the plants": r"plant|leaves|leaf|soil|flower|dry|garden|\bpots?\b|green|water|\bsun|thirst|earth",
    "bring some bread": r"bread|baker|crust|loaf|loaves|oven|flour|smell|fresh|butter|toast|kitchen|wheat|soup",
    "call back tonight": r"phone|call|ring|voice|number|line\b|bell",
    "feed the cat": r"\bcat\b|food|bowl|fur|meow|hungry|kitchen|tail|milk|fish|purr|whisker|tin\b",
    "send the photos": r"photo|picture|image|colou?r|smil|album|frame|face|camera",
    "close the window": r"wind\b|window|rain|cold|air\b|nois|curtain|breeze|draught|glass|snow|storm|dust|room",
    "the new job": r"office|desk|job|work|team|compan|colleague|building|coffee|window|suit|career",
    "the exam": r"exam|grade|paper|class|passed|stud(y|ied)|question|hard|certificate|score|mark|test\b",
    "the new baby": r"baby|girl|boy|smil|eyes|face|hair|finger|toes|laugh|cr(y|ies|ied)|sleep|blanket|tiny|cheek",
    "the new house": r"house|home|garden|door|window|room|roof|kitchen|wall|floor|view|street|balcony",
    "the first prize": r"trophy|medal|gold|silver|prize|cup\b|ribbon|crowd|stage|star\b|applau|certificate",
    "the wedding": r"flower|dress|ring|cake|dance|music|church|bride|guest|ceremony|bell|veil|bouquet",
    "the dentist tomorrow": r"dentist|t(oo|ee)th|chair|drill|clinic|office|smile|mint|waiting room|brush",
    "the tickets": r"ticket|paper|wallet|pocket|show\b|concert|seat|train|envelope|drawer|stage|film|theat",
    "the rent": r"rent\b|landlord|money|month|bank|letter|bill|paid|pay\b|house|apartment|door",
    "the meeting at nine": r"meeting|office|room|table|clock|coffee|desk|colleague|boss|chair|agenda",
    "the library books": r"book|shel(f|ves)|page|library|cover|librarian|read|bag|dust",
    "the umbrella": r"rain|cloud|\bwet\b|storm|wind\b|puddle|umbrella|grey|drop|thunder",
}
"""By matter, what a rich sentence about it names: a regular expression."""
CONTRADICTIONS = re.compile(
    r"umbrella\b.*\b(sun|shining)\b|closed\b.*\b(open|smells|normal day|here|in my shop)\b"
    r"|remember .*\b(you found|you're here|you are here)\b|on the table\b.*\b(on the (?!table)|in the)\b"
    r"|thank you .*\byou ((have )?enjoyed|found|loved?|liked?) (the|it|them|our)\b|how much you love"
    r"|feed the cat\b.*\b(wonderful|good|great|lovely|beautiful|amazing) (cat|animal|pet)\b|\blike yourself\b"
    r"|\bI('ll)?( would| always| really| like| want| will| could| have| loved)* (to )?help (you|others)\b"
    r"|\bproud of (what I|my)\b"
    r"|\bsorry\b.*\bglad you\b|\brecovery\b.*\b(dark|proud)\b|\b(glad|happy) (that )?you enjoyed\b"
    r"|on the table\b.*\byou have them\b|remember .*\b(lost|missing)\b|\bbaby\b.*\bcover\b"
    r"|\b(sun is (high|shining)|sky is blue)\b.*\bstars\b|\bplease \w+ .*\bglad (that )?you did\b"
    r"|\bmeeting\b.*\b(music|laughter)\b|\bworks again\b.*\b(shame|long time ago|oil)\b",
    re.IGNORECASE,
)
"""Texts that contradict themselves, or in which the writer speaks as the reader."""
NONSENSE = re.compile(
    r"\b(whole|entire) (city|town|world)\b|\bsmells of (them|happy|people)\b|\bin stitches\b"
    r"|\bthe top of the screen\b|\blost in the wind\b|\bheating the cake\b|\bsee your daughter\b"
    r"|(\bbox\b.*){3}|\brestaurant in the kitchen\b|\bmade of fine,|\bbe well-deserved\b|\bfor the new one\b"
    r"|\b(weather|traffic) was too\.|\byou appreciate your\b|\bon the other end\b|\btime at the party\b"
    r"|\bhear about your work\b",
    re.IGNORECASE,
)
"""Words of sentences that say nothing sensible behind any of the messages."""


def misfit(request: str, style: str, text: str, sentence: str) -> str:
    """Returns why a whole `text`, which ends in the rich or warm `sentence`, does not fit its request; empty
    where it fits.
    """
    if style == "rich" and not re.search(SCENES[matter_of(request)], sentence, re.IGNORECASE):
        return "another matter"
    if CONTRADICTIONS.search(text):
        return "contradiction"
    return "nonsense" if NONSENSE.search(sentence) else ""


def matter_of(request: str) -> str:
    """Returns the key of `SCENES` with which a request ends."""
    return max((own for own in SCENES if request.endswith(f" {own}.")), key=len)
