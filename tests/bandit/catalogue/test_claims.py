"""Claims in words: what they say is refused without its evidence, in eight languages; honest sentences pass."""

import pytest

from bandit.catalogue.content.claims import check_claims, claims
from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError

HONEST = """
Only 2 steps left
You have 3 lessons left in this chapter
Two questions left, then you are done
3 left to finish the level
In stock, delivered in 2 days
Cancel free of charge within 24 hours
Hold this price for 24 hours
Send it back within 30 days
Find your level in 3 minutes
10% off your first order
Play 3 days in a row for a badge
Ten minutes a day?
Three quests to your first chest
Invite 3 friends
4 people can share this plan
For two players
Your last order, worn in three ways
What you learned in the last 30 days
The last few steps are short
Two packs for less than two prices
Step number one: your document
Next month at half price
Compare the five plans
Available in 12 colours
We counted them for you
Pay in three parts, the last one in two months
A few minutes are enough
Your cart is still here
The trial is free for 14 days
Read what others wrote about it
Where you stand among your friends
Open until 8 pm, also on Sundays
Arrives today if the courier is fast
Stop the timer before you leave the page
Don't wait for the bus: buy the ticket here
You can stop at any time
A limited company was founded
Your spending of this week, in numbers
Save the change of each payment
Popular songs for the piano, for beginners
No hurry, we keep it for you
In a hurry? Save it for later
Only 3 items per person
Just one item more for free shipping
The last item you looked at
Your last 3 pairs came from us
It goes quickly: three questions
Apply in 10 minutes
Save your progress in two steps
It can be used by 2 people
4 players are needed
Join 2 games
Some people like it short
A few questions left
5 minutes left in this lesson
Open until midnight
See only today's lessons
One left-handed mouse
Last one in: switch off the light
The price ends with .99
Two players have a seat here
Turn left in 2 streets
Your points never expire
You booked 12 times
Rate it with 5 stars
Last step: the photo
The course ends with a test
Order today, pay later
Almost finished
Nur noch 2 Schritte bis zum Konto
Noch 2 Fragen, dann bist du fertig
Noch 10 Minuten am Tag üben?
Rückgabe kostenlos, 30 Tage lang
Innerhalb von 24 Stunden kostenlos stornieren
Häufig gefragt: Welche Größe passt mir?
Zwei Paar Schuhe in einem Paket
Deine letzte Bestellung in neuen Farben
Alle Bewertungen, auch die kritischen
Lieferung in 2 bis 3 Tagen
Ein paar Fragen, keine Noten
Wir melden uns, wenn der Preis fällt
Noch ein Paar Schuhe dazu?
Nur noch 2 Artikel bis zum kostenlosen Versand
Dauert nur 10 Minuten
Letzter Schritt
Dein Abo läuft weiter
Noch 3 Punkte bis zum Gold-Status
Nur für dich
Deine letzten Artikel
Was du gerade gekauft hast
Du musst nicht schnell sein
Bis Größe 44, nicht nur bis Größe 42
Bis morgen! Wir haben deinen Stand gespeichert
Drei Kurse für den Anfang
Plus que 2 étapes avant la fin
Il te reste deux questions
Votre colis part vite
Derniers articles consultés
Derniers jours de votre mois
Dernière étape
Un compte en 3 minutes seulement
La tendance de vos dépenses ce mois-ci
Retour gratuit sous 30 jours
Deux articles pour le prix d'un
Apprenez un peu chaque jour
Solo quedan 2 pasos
Últimos artículos vistos
Te quedan tres preguntas
Devolución gratuita en 30 días
Elige el plan que más te conviene
Disponible en doce colores
Restano due passaggi
Ultimi articoli visti
Ultimo passo
Oggi impari qualcosa
Bastano pochissimi minuti
Il reso è gratuito per 30 giorni
Scegli la taglia giusta
Ultimi ordini e resi
Faltam duas perguntas
Devolução grátis em 30 dias
Escolha o plano certo para você
Nog twee stappen en je bent klaar
Oefen nog 10 minuten
Slechts 10 minuten werk
Je planning voor de komende 7 dagen
Gratis retourneren binnen 30 dagen
Kies de maat die je past
تبقى خطوتان فقط
احفظ تقدمك قبل أن ينتهي الدرس
الدفع أسرع بهذه الطريقة
إرجاع مجاني خلال 30 يومًا
اختر المقاس المناسب لك
الخطوة الأخيرة
اليوم تتعلم شيئًا جديدًا
اقرأ ما كتبه الآخرون
ثلاث خطوات حتى أول صندوق
""".strip().splitlines()

FALSE = {  # kind: sentences that claim it
    "units": """
Only 3 left
Just three left in your size!
Only 2 seats left at this price
12 items left in stock
4 rooms remaining
Only ３ left
O\u200bnly 3 left
Only {count} left
2 in stock
Nur noch 3 Stück!
Nur noch drei in deiner Größe
Noch 4 Plätze zu diesem Preis
Noch 2 auf Lager
Plus que 3 en stock !
Il ne reste que 2 places
Solo quedan 3
¡Quedan 2 unidades!
Restano solo 3 pezzi
Ultimi 2 posti
Restam apenas 3 unidades
Só 2 unidades
Nog maar 3 stuks
Nog 2 kamers beschikbaar
بقي 3 قطع فقط
آخر 2 قطع
المتبقي بمقاسك: ٣ فقط
""",
    "scarcity": """
Few left
Only a few left in your size
A few seats left at this price
Almost gone
Places are limited
One of your items is almost gone
LIMITED STOCK remaining
Limited  stock
Last one!
Only a handful left
The last piece in stock
We're almost out
Selling fast
Nearly sold out
The last pairs in your size
While stocks last
Only {stock} left
Fast ausverkauft
Letztes Stück
Nur noch wenige übrig
Die letzten Exemplare
Solange der Vorrat reicht
Begrenzte Stückzahl
Noch {stock} Plätze
Stock limité
Dernières pièces
Presque épuisé
Plus que quelques exemplaires
Últimas unidades
Quedan pocas
Última unidad
Casi agotado
Ultimi pezzi
Quasi esaurito
Ultimo pezzo
Va a ruba
Últimas peças
Estoque limitado
Quase esgotado
Última peça
Bijna uitverkocht
Laatste stuks
Op=op
Laatste exemplaar
كمية محدودة
آخر قطعة
على وشك النفاد
""",
    "gone": """
Get it before it’s gone
Hol es dir, bevor es weg ist
Koop het voordat het op is
""",
    "urgency": """
Ends soon
The offer ends when it ends
Last chance!
Hurry!
A few hours left
Limited-time price
Limited offer
Flash sale
In the shop for a limited time
Time is running out
Beeil dich
Letzte Chance
Endet bald
Nur für kurze Zeit
Nur für begrenzte Zeit
Dépêchez-vous !
Dernière chance
Offre limitée
Vente flash
Derniers jours
¡Date prisa!
Última oportunidad
Por tiempo limitado
Affrettati!
Ultima occasione
Scade presto
Última chance
Por tempo limitado
Haast je!
Laatste kans
أسرع!
الفرصة الأخيرة
لفترة محدودة
""",
    "times": """
Today only
48 hours only
For 2 hours only
Ends tonight
Sale ends in 3 hours
Only until Sunday
Ends 31 December
Valid until 31.12.
Offer ends on Sunday
10% off until midnight
Only 20 minutes left
Book within the next 2 hours
This weekend only
Nur heute
Endet heute
Nur noch 2 Stunden
Aktion bis Sonntag
Gültig bis 31.12.
Aujourd'hui seulement
Se termine dans 2 heures
Jusqu'à minuit
Solo hoy
Solo hasta mañana
Termina en 2 horas
Solo per oggi
Scade stasera
Só hoje
Só até amanhã
Termina em 3 horas
Alleen vandaag
Eindigt vanavond
اليوم فقط
لمدة ساعتين فقط
ينتهي العرض اليوم
""",
    "crowd": """
12 people are looking at this
{viewers} people are viewing it
Someone just bought it
Bestseller
500 sold
Booked 12 times today
In 5 carts right now
Customers love it
Top rated
A favourite of the week
Most popular
Trending
Loved by 10,000 customers
Thousands of players
Others also bought
12 Personen sehen sich das an
Meistverkauft
Wird gerade von 12 Personen angesehen
Sehr gefragt
12 personnes regardent ce produit
Meilleure vente
Très demandé
15 personas están viendo esto
El más vendido
9 persone stanno guardando
Il più venduto
8 pessoas estão vendo
O mais vendido
14 mensen bekijken dit
Meest gekozen
12 شخص يشاهد هذا الآن
الأكثر مبيعًا
""",
}
PROOF = {"scarcity": ("stock",), "urgency": ("deadline",), "gone": ("stock", "deadline")}
CASES = [(kind, text) for kind, texts in FALSE.items() for text in texts.strip().splitlines()]


def test_the_lists_are_long() -> None:
    assert len(HONEST) >= 60
    assert len(CASES) >= 60


@pytest.mark.parametrize("text", HONEST)
def test_an_honest_sentence_passes_without_evidence(text: str) -> None:
    assert claims(text) == []


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_a_claim_needs_its_evidence(kind: str, text: str) -> None:
    """What is written out, and what other people do, no evidence bears out."""
    assert kind in {claim.kind for claim in claims(text)}, claims(text)
    for evidence in (None, "stock", "deadline"):
        refused = list(check_claims("here", text, {}, evidence))
        assert (refused == []) == (evidence in PROOF.get(kind, ())), (evidence, refused)


@pytest.mark.parametrize(
    ("text", "evidence", "words", "fix"),
    [
        ("Hello. Only 3  LEFT in red", "stock", "'Only 3  LEFT' writes out how many there are", "write {stock}"),
        ("Fast épuisé? Presque Épuisé.", None, "'Presque Épuisé' says that there are few", 'kind = "stock"'),
        ("Hurry", "stock", "'Hurry' says that it ends", 'kind = "deadline"'),
        ("Ends tonight", "deadline", "'Ends tonight' writes out when it ends", "write {deadline}"),
        ("A bestseller", "stock", "'bestseller' says what other people do", "needs no proof"),
    ],
)
def test_the_words_and_the_fix_are_named(text: str, evidence: str | None, words: str, fix: str) -> None:
    (found,) = check_claims("a.title", text, {}, evidence)
    assert found.field == "a.title"
    assert words in found.problem
    assert fix in found.fix


def test_a_text_with_several_claims_is_one_problem_that_names_them_all() -> None:
    (found,) = check_claims("a", "Hurry, a bestseller, almost gone!", {}, None)
    assert all(f"'{words}' says" in found.problem for words in ("Hurry", "bestseller", "almost gone"))
    assert all(fix in found.fix for fix in ('"stock"', '"deadline"', "needs no proof"))


def test_a_number_of_the_payload_proves_nothing() -> None:
    """It is filled in before the text is read."""
    assert claims("Only {left} left")
    (found,) = check_claims("a", "{who} are looking at this", {"who": "9 people"}, None)
    assert found.problem.startswith("'9 people are")
    assert list(check_claims("a", "{quests} quests left", {"quests": 3}, None)) == []


@pytest.mark.parametrize("text", ["1 ", "few ", "book ", "{", "last ", "12", "فقط "])
def test_long_texts_are_read_in_pieces_of_bounded_length(text: str) -> None:
    """No expression looks further than a fixed number of words: without that bound such a text takes minutes."""
    assert claims(text * 20_000) == []


SHOP = """
app = "shop"
currency = "EUR"

[stages.cart]
reward = { kind = "binary", window = "24h" }
features = {}

[stages.cart.nudges.n]
type = "t"
format = "walkthrough"
payload = { title = "Almost gone", more = [{ text = "Today only", left = 3 }] }

[stages.cart.nudges.n.content]
image = "a.png"
texts.en.title = "Hurry"
texts.en.text = "Few left"
texts.en.alt = "Bestseller"
texts.en.steps = [{ title = "Only 3 left", text = "Hurry" }]
texts.de.title = "Nur heute"
texts.de.steps = [{ title = "Gut" }]
"""


def test_every_text_of_content_and_payload_is_read() -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(SHOP)
    texts = "stages.cart.nudges.n.content.texts"
    assert [found.field for found in caught.value.mistakes] == [
        "stages.cart.nudges.n.payload.title",
        "stages.cart.nudges.n.payload.more[0].text",
        f"{texts}.en.title",
        f"{texts}.en.text",
        f"{texts}.en.alt",
        f"{texts}.en.steps[0].title",
        f"{texts}.en.steps[0].text",
        f"{texts}.de.title",
    ]
