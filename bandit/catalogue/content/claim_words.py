"""Words that claim something, by language: what `bandit.catalogue.content.claims` looks for.

Regular expressions over folded text (lower case, no accents, no marks; they are folded themselves, so they are written
as the language writes them). `<n>` is a number in digits or words, or a placeholder that is none of evidence; `<s>` the
placeholder of the stock; `<a>` either. Expressions are narrow: "only 2 steps left" is no claim about stock.
"""

from typing import Final

NUMBERS: Final = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|a couple|a dozen|dozens|hundreds"
    "|ein|eine|einer|einen|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|dutzende|hunderte"
    "|un|une|deux|trois|quatre|cinq|sept|huit|neuf|dix|onze|douze|quelques centaines"
    "|una|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|uno|due|tre|quattro|cinque|sei|sette|otto|nove|dieci"
    "|um|uma|dois|duas|três|quatro|sete|oito|dez|een|één|twee|drie|vijf|zes|zeven|negen|tien"
    "|واحد|واحدة|اثنان|اثنتان|ثلاث|ثلاثة|أربع|أربعة|خمس|خمسة|ست|ستة|سبع|سبعة|ثماني|ثمانية|تسع|تسعة|عشر|عشرة"
)

UNITS: Final = (  # how many there are: {stock} says it
    # English
    r"(?:only|just) <n> (?:remaining|available|in stock)",
    r"(?<!your\x20)(?:last|final) <n> (?:pieces?|pairs?|units?|seats?|rooms?|copies|tickets?)\b(?! you| of your)",
    r"(?:only )?<n> (?:(?:items?|pieces?|pairs?|units?|seats?|rooms?|spots?|places?|tickets?|copies|tables?"
    r"|products?) )?(?:are |is |still )?(?:left|remaining)\b(?! to\b| over\b| for you\b|-)",
    r"<n> (?:items? |pieces? |pairs? |units? )?(?:left )?in stock",
    r"only <n> (?:seats?|rooms?|tickets?|spots?|units?|items?|pairs?|pieces?)\b(?! per| each| fit| at a time"
    r"| in (?:one|a)\b)",
    # German
    r"nur noch <n> (?:stück|paar|plätze|zimmer|artikel|exemplare|tickets|karten|sitze|sitzplätze)\b(?! bis)",
    r"noch <n> (?:stück|paar|plätze|zimmer|artikel|exemplare|tickets|karten|sitze|sitzplätze) (?:frei|verfügbar"
    r"|da\b|übrig"
    r"|auf lager|zu diesem|in deiner|in ihrer)",
    r"nur noch <n>(?: (?:übrig|da|frei|verfügbar|vorrätig|auf lager|in (?:deiner|ihrer|dieser)|zu diesem)|[.!,]|$)",
    r"(?:noch )?<n> (?:stück |paar |artikel )?(?:auf lager|vorrätig|verfügbar|übrig)",
    r"die letzten <n> (?:stück|paar|plätze|zimmer|exemplare|artikel)",
    # French
    r"plus que <n>(?: (?:en stock|exemplaires?|pièces?|articles?|places?|chambres?|paires?|disponibles?"
    r"|dans votre|dans ta"
    r"|à ce prix)|\s?[.!,]|$)",
    r"il (?:n'en |ne |en )?reste (?:plus )?(?:que )?<n>(?: (?:en stock|exemplaires?|pièces?|articles?|places?"
    r"|chambres?"
    r"|paires?|dans votre|dans ta|à ce prix)|\s?[.!,]|$)",
    r"<n> (?:articles? |pièces? |places? )?(?:restante?s?|en stock)",
    # Spanish
    r"(?:solo |tan solo |únicamente )?quedan? (?:solo )?<n>(?: (?:unidad(?:es)?|en stock|disponibles?|plazas?"
    r"|habitaci"
    r"(?:ón|ones)|par(?:es)?|artículos?|asientos?|piezas?|en tu|a este precio)\b(?! para)|[.!,]|$)",
    r"<n> (?:unidades |artículos )?(?:en stock|disponibles)",
    # Italian
    r"(?:ne )?(?:restano|resta|rimangono|rimane|sono rimasti|sono rimaste) (?:solo "
    r"|soltanto )?<n>(?: (?:pezz[io]|post[io]"
    r"|articol[io]|camer[ae]|pai[ao]|disponibil[ie]|nella tua|a questo prezzo)\b(?! per)|[.!,]|$)",
    r"(?:solo|soltanto|ultim[ie]) <n> (?:rimast[ie]|disponibil[ie]|pezzi|posti|articoli|camere|paia|in magazzino)",
    # Portuguese
    r"(?:só |apenas |somente )?(?:restam?|sobram?) (?:só |apenas )?<n>(?: (?:unidades?|em estoque|em stock"
    r"|lugare?s?"
    r"|quartos?|peças?|pares?|itens?|no (?:seu|teu)|a este preço)\b(?! para)|[.!,]|$)",
    r"(?:só|apenas|somente|últim[ao]s) <n> (?:unidades?|lugares|quartos|peças|pares|itens|em estoque|em stock)",
    # Dutch
    r"(?:nog |nog maar |slechts |de laatste )<n> (?:over\b|beschikbaar|op voorraad|stuks?\b|plaatsen|kamers|paar\b"
    r"|exemplaren|in jouw|in je maat)",
    r"nog maar <n>(?:[.!,]|$)",
    # Arabic
    r"(?:بقي|بقيت|تبقى|يتبقى|المتبقي|متبقي|لم يتبق|لم يبق)(?: (?:سوى|إلا|فقط|منه|منها|لدينا|بمقاسك"
    r"|في المخزون))*:? <n>"
    r"(?: (?:قطع|قطعة|مقاعد|مقعد|غرف|غرفة|فقط|في المخزون|وحدات|وحدة|حبات)|[.!،]|$)",
    r"<n> (?:قطع|قطعة|مقاعد|غرف|وحدات) (?:فقط|متبقية|باقية|في المخزون)",
    r"آخر <n> (?:قطع|مقاعد|غرف|وحدات)",
)

SCARCITY: Final = (  # that there are few: evidence of stock bears it out
    r"<s> (?:\w+ ){0,2}(?:left|remaining|in stock)",
    r"(?:only|just|last|final|solo|soltanto|só|apenas|slechts|nog(?: maar)?|nur noch|noch|plus que) <s>",
    r"(?:quedan?|restano|rimangono|restam|reste|فقط|المتبقي|تبقى|بقي|متبقي)(?: [^ ]+){0,3}:? <s>",
    # English
    r"(?<!your\x20)last (?:piece|pair|unit|seat|room|copy|spot)(?: (?:left|available|in stock|in your|at this)"
    r"|[.!]|$)",
    r"^(?:the )?last one[.!]?$|last one (?:left|available|in stock)|a handful (?:\w+ ){0,2}(?:left|remaining)",
    r"(?:we're|we are) almost out\b(?! of the)|^running low|running low on stock",
    r"(?:a |very |only a )?few (?!days|hours|minutes|steps|questions|lessons|tasks|lives)(?:\w+ ){0,3}(?:left"
    r"|remaining)",
    r"(?:limited|low|scarce|dwindling) (?:stocks?|availability|quantit(?:y|ies)|seats?|spots?|places|supply"
    r"|supplies)",
    r"(?:seats|places|spots|rooms) are limited|stocks? (?:is |are )?(?:limited|low|running (?:low|out))",
    r"(?:almost|nearly|practically|virtually|soon) (?:gone|sold(?: |-)out|out of stock|fully booked)",
    r"(?:selling|sells) (?:out )?(?:fast|quickly)|(?:going|running out) fast|(?:sells|selling) out\b",
    r"(?<!your\x20)(?:last|final) (?:few )?(?:ones|pieces|pairs|units|seats|rooms|copies|spots|places"
    r"|sizes)\b(?! you| that| of your)",
    r"(?:while|until) (?:stocks?|supplies) lasts?",
    r"(?:hardly|barely) any left|in short supply",
    # German
    r"letzte[sr] (?:stück|exemplar|paar|zimmer|platz)\b",
    r"(?:fast|beinahe|bald|nahezu|gleich) (?:ausverkauft|weg\b|vergriffen|ausgebucht|alle\b(?! \w))",
    r"(?:nur noch|nur|noch) (?:wenige|einige|ein paar)(?: (?:stück|paar|plätze|zimmer|artikel|exemplare|tickets"
    r"|karten"
    r"|teile|übrig|verfügbar|da\b|frei|auf lager|in deiner|in ihrer)|[.!,]|$)",
    r"(?:nur )?(?:wenige|ein paar) (?:stück|plätze|exemplare|artikel) (?:übrig|verfügbar|frei|auf lager)",
    r"letzten? (?:stücke?|exemplare|plätze|paare?|größen|zimmer)",
    r"(?:knapper|geringer|begrenzter|limitierter) (?:bestand|vorrat)|begrenzte[rs]? (?:stückzahl|menge"
    r"|verfügbarkeit"
    r"|plätze|anzahl)|vorrat (?:ist )?begrenzt",
    r"(?:solange|so lange) (?:der )?vorrat(?: reicht)?|schnell (?:vergriffen|ausverkauft)",
    # French
    r"plus que quelques (?:\w+)|quelques (?:pièces|exemplaires|places|articles) (?:restant|disponibles|en stock)",
    r"derni(?:ers|ères) (?:pièces|exemplaires|places|chambres|tailles|paires|disponibilités)",
    r"(?:stocks?|quantités?|places|disponibilité) (?:très )?(?:limitée?s?|faible)|dans la limite des stocks",
    r"(?:presque|bientôt|quasiment) (?:épuisée?s?|partie?s?|vendue?s?|complete?t?s?)|jusqu'à épuisement",
    r"(?:ça part|partent|se vend|se vendent) (?:très )?vite",
    # Spanish
    r"última (?:unidad|plaza|pieza|habitación)\b",
    r"quedan (?:muy )?poc[oa]s|poc[oa]s (?:unidades|plazas|existencias|piezas|artículos)",
    r"últim[oa]s (?:unidades|plazas|piezas|tallas|habitaciones|pares|asientos|existencias)",
    r"(?:stock|existencias|plazas|unidades|cantidades|cantidad|disponibilidad) (?:muy )?limitad[oa]s?",
    r"casi agotad[oa]s?|a punto de agotarse|se agotan? (?:rápido|pronto)|hasta (?:agotar|fin de) existencias",
    # Italian
    r"ultimo (?:pezzo|posto)\b",
    r"ultim[ie]ss?im[ie] (?:pezzi|posti)|ultim[ie] (?:pezzi|posti|taglie|camere|unità|copie|paia)",
    r"(?:scorte|disponibilità|quantità|posti|pezzi) limitat[aei]|poch(?:issim)?[ei] (?:pezzi|posti|camere|unità)",
    r"quasi (?:esaurit|finit)[oaie]|sta per esaurir|in esaurimento|(?:va|vanno|andando) a ruba|fino a esaurimento",
    # Portuguese
    r"última (?:peça|vaga|unidade)\b|último lugar\b",
    r"últim[oa]s (?:peças|vagas|lugares|pares|quartos)|restam pouc[oa]s|pouc[oa]s (?:unidades|lugares|itens|peças)",
    r"(?:estoque|stock|quantidade|vagas|unidades) limitad[oa]s?|quase (?:esgotad[oa]s?|acabando|a acabar)",
    r"esgotam? (?:rápido|depressa|em breve)|enquanto durarem|até esgotar|vendendo rápido",
    # Dutch
    r"laatste (?:exemplaar|stuk|kamer)\b",
    r"nog (?:maar )?(?:een paar|enkele|weinig)(?: (?:stuks|plaatsen|kamers|over\b|beschikbaar|op voorraad)"
    r"|[.!,]|$)",
    r"bijna (?:uitverkocht|weg|volgeboekt|op[.!]|op$)|laatste (?:stuks|exemplaren|plaatsen|kamers|paren|maten)",
    r"beperkte (?:voorraad|beschikbaarheid|plaatsen|aantallen)|op ?(?:=|is) ?op\b|zolang de voorraad strekt",
    # Arabic
    r"(?:كمية|كميات|الكمية|الكميات|مقاعد|المقاعد|أماكن|الأماكن|قطع) محدودة|(?:مخزون|المخزون) (?:محدود|قليل|منخفض)",
    r"آخر (?:القطع|قطعة|المقاعد|مقعد|الغرف|غرفة|الحبات)|القطع الأخيرة|بقي القليل|لم يتبق إلا القليل"
    r"|قطع قليلة متبقية",
    r"(?:على وشك|أوشكت? على|قارب على|يقارب على) النفاد|ينفد (?:قريبا|بسرعة)|حتى نفاد (?:الكمية|المخزون)|كاد ينفد",
)

GONE: Final = (  # that it will not be there for long: evidence of either bears it out
    r"before (?:it's|it is|they're|they are|it has) (?:all )?gone|gone (?:soon|tomorrow)|bevor (?:es|er"
    r"|sie) weg (?:ist|sind)",
    r"avant qu'il n'y en ait plus|antes de que (?:se acaben?|se agoten?)|prima che (?:finisca|finiscano"
    r"|vada a ruba)",
    r"antes que (?:acabem?|esgotem?)|voordat het op is|قبل أن (?:ينفد|تنفد)",
)

URGENCY: Final = (  # that there is an end to it: evidence of a deadline bears it out
    # English
    r"limited offer|flash sale",
    r"(?<!no\x20)(?<!no\x20need\x20to\x20)(?<!in\x20a\x20)hurry\b|few (?:days|hours|minutes) (?:left|remaining)",
    r"(?:ends?|ending|expires?|expiring|closes|closing) (?:very )?soon|last chance|last call\b|final hours?",
    r"(?:for a )?limited(?: |-)time|time(?:'s| is) (?:running|almost) (?:out|up)|running out of time"
    r"|clock is ticking",
    r"act (?:now|fast|quickly)|now or never|before it(?:'s| is) too late|(?:don't|do not) (?:wait"
    r"|delay)\b(?! for| in)",
    r"(?:offer|sale|deal|discount|promotion|price|voucher|coupon) (?:ends(?! with)|expires|closes|is ending|ending)",
    # German
    r"begrenzte zeit",
    r"beeil(?:e|en|t)? (?:dich|sie sich|euch)|endet (?:schon )?bald|läuft (?:schon )?bald ab|bald vorbei"
    r"|letzte (?:chance|gelegenheit|stunden)",
    r"nur (?:für )?kurze zeit|zeitlich begrenzt|befristetes angebot|bevor es zu spät ist|jetzt oder nie|(?:sei"
    r"|jetzt) schnell\b|schnell (?:zugreifen|zuschlagen)",
    r"(?:angebot|aktion|rabatt|aktionspreis|gutschein) (?:endet|läuft ab|läuft \w+ ab)|zeit läuft (?:ab|davon)",
    # French
    r"vente flash|derniers jours(?: ?!| pour|$)",
    r"dépêche[sz]?(?: |-)(?:toi|vous)|dernière chance|dernières heures|(?:se termine|expire|prend fin) bientôt"
    r"|fai(?:s|tes) vite",
    r"(?:durée|temps) limitée?|offre limitée|l'offre (?:se termine|expire|prend fin)"
    r"|avant qu'il (?:ne )?soit trop tard|maintenant ou jamais",
    # Spanish
    r"da(?:te|os) prisa|dese prisa|apresúrate|apúrate|última oportunidad|últimas horas|(?:termina|acaba|expira"
    r"|caduca) pronto",
    r"t[ie]{0,2}mpo limitado|oferta limitada|la oferta (?:termina|acaba|expira|caduca|finaliza)"
    r"|antes de que sea (?:demasiado )?tarde|ahora o nunca",
    # Italian
    r"affrett(?:ati|atevi)|sbrigati|ultima (?:occasione|possibilità|chance|opportunità)|ultime ore|(?:scade"
    r"|termina|finisce) presto",
    r"tempo limitato|offerta limitata|l'offerta (?:scade|termina|finisce)|prima che sia (?:troppo )?tardi"
    r"|ora o mai più",
    # Portuguese
    r"apresse-se|apressa-te|despacha-te|corra[!,]|última (?:chance|oportunidade)|(?:acaba|termina|expira) em breve",
    r"a oferta (?:acaba|termina|expira)|antes que seja tarde|agora ou nunca",
    # Dutch
    r"haast (?:je|u)\b|wees er snel bij|laatste (?:kans|uren)|(?:eindigt|verloopt|stopt) (?:binnenkort|snel)"
    r"|loopt binnenkort af",
    r"beperkte tijd|tijdelijke? (?:aanbod|aanbieding)|(?:aanbieding|actie|korting) (?:eindigt|verloopt|loopt)"
    r"|nu of nooit|het te laat is",
    # Arabic
    r"^أسرع(?:ي|وا)?\b|أسرع(?:ي|وا)?(?:!| قبل| الآن| و)|سارع(?:ي|وا)?\b|(?:الفرصة|فرصة) (?:ال)?أخيرة|آخر فرصة"
    r"|الساعات الأخيرة",
    r"ل(?:فترة|وقت|مدة) محدودة?|عرض محدود|(?:ينتهي|تنتهي) قريبا|ينتهي العرض|العرض ينتهي|قبل (?:فوات الأوان"
    r"|انتهاء العرض)|الآن أو أبدا",
)

TIMES: Final = (  # when it ends: {deadline} says it
    # English
    r"only (?:until|till) (?:tomorrow|midnight|\d|(?:mon|tues|wednes|thurs|fri|satur|sun)day)|valid (?:until"
    r"|till) \d",
    r"ends? (?:on )?(?:the )?\d{1,2}(?:st|nd|rd|th)? (?:of )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
    r"(?:today|tonight|tomorrow|this (?:week|weekend|evening|morning)) only|only (?:today|tonight|this (?:week"
    r"|weekend|evening))\b(?!')",
    r"(?:ends?|ending|expires?|expiring|closes|closing|over) (?:today|tonight|tomorrow|this (?:week|weekend"
    r"|evening)"
    r"|(?:at|by) (?:midnight|noon|\d)|in <n> |on (?:the )?\d|(?:on )?(?:mon|tues|wednes|thurs|fri|satur|sun)day)",
    r"(?<!open\x20)(?:until|till|before|by) (?:midnight|tonight)",
    r"(?:offer|sale|deal|discount|price|% off)[^.!?]{0,40} (?:until|till|through) (?:tomorrow|(?:mon|tues"
    r"|wednes|thurs|fri|satur|sun)day|\d)",
    r"for (?:the next )?<n> (?:seconds|minutes?|hours?|days?) only|only for (?:the next )?<n> (?:seconds"
    r"|minutes?|hours?|days?)",
    r"(?:only|just) <n> (?:seconds|minutes?|hours?|days?) (?:left|remaining|to go)|<n> (?:minutes?|hours?"
    r"|days?) (?:left|remaining)(?! in (?:this|the) (?:lesson|chapter|course|video|episode|level|round))",
    r"(?:final|last) <n> (?:minutes?|hours?) (?:of|to)|<n> hours? only",
    r"(?:order|book|buy|pay|apply|act|save|claim|purchase)\b[^.!?]{0,30} (?:in|within) the next <n> (?:minutes?"
    r"|hours?)",
    r"(?:order|book|buy|pay|act)(?: now)? within <n> (?:minutes?|hours?)\b(?! (?:of|after|before))",
    # German
    r"gültig (?:nur )?bis (?:zum )?\d",
    r"nur (?:noch )?heute|heute nur\b|nur (?:noch )?(?:dieses wochenende|diese woche)|bis mitternacht",
    r"nur (?:noch )?bis (?:heute|morgen|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch|zum \d)",
    r"nur noch <n> (?:sekunden|minuten?|stunden?|tage?)\b(?! (?:am|pro|täglich|bis|in (?:der|dieser)))"
    r"|nur <n> (?:stunden|tage) (?:gültig|lang)",
    r"(?:noch )<n> (?:minuten|stunden?|tage?) (?:gültig|günstiger|erhältlich|verfügbar)",
    r"ende(?:t|n) (?:schon )?(?:heute|morgen|am (?:\d|(?:mon|diens|donners|frei|sams|sonn)tag|mittwoch)|in <n> "
    r"|um \d)",
    r"läuft (?:schon )?(?:heute|morgen|in <n> \w+|um \d+(?: uhr)?) ab",
    r"(?:angebot|aktion|rabatt|% )[^.!?]{0,40} bis (?:heute|morgen|(?:mon|diens|donners|frei|sams|sonn)tag"
    r"|mittwoch|zum \d)",
    r"in(?:nerhalb)? (?:den|der) nächsten <n> (?:minuten|stunden)\b[^.!?]{0,30}(?:bestell|buch|kauf)|(?:bestell"
    r"|buch|kauf)\w*"
    r"\b[^.!?]{0,30} in(?:nerhalb)? (?:den|der) nächsten <n> (?:minuten|stunden)",
    # French
    r"(?:seulement|uniquement) jusqu'(?:à|au) (?:demain|dimanche|\d)",
    r"aujourd'hui (?:seulement|uniquement)|(?:seulement|uniquement|qu')\s?aujourd'hui|jusqu'à (?:minuit|ce soir"
    r"|demain)",
    r"ce week-end (?:seulement|uniquement)|(?:plus que|reste) <n> (?:minutes?|heures?|jours?)\b(?! de"
    r"| d'exercice| avant la fin)",
    r"(?:se termine|expire|finit|prend fin) (?:dans <n> |ce soir|demain|aujourd'hui|à (?:minuit|\d)|dimanche"
    r"|le \d)",
    r"<n> heures? (?:seulement|uniquement)|pendant <n> \w+ seulement|dans les <n> prochaines (?:heures|minutes)",
    # Spanish
    r"solo hasta (?:mañana|el (?:domingo|\d))",
    r"(?:solo|únicamente) (?:por )?hoy|hoy (?:solo|únicamente)|hasta (?:la )?medianoche|solo este fin de semana",
    r"(?:termina|acaba|expira|finaliza|caduca) (?:hoy|mañana|esta noche|en <n> |a las|el (?:domingo|\d))",
    r"solo (?:durante|por) <n> (?:horas?|minutos|días?)|en las próximas <n> horas|quedan <n> (?:horas|minutos"
    r"|días)",
    # Italian
    r"solo fino a (?:domani|domenica)",
    r"solo (?:per )?oggi|oggi soltanto|fino a mezzanotte|solo questo (?:fine settimana|weekend)"
    r"|solo per <n> (?:or[ae]|giorni)\b(?! al)",
    r"(?:scade|termina|finisce) (?:oggi|stasera|domani|tra <n> |fra <n> |alle|domenica|il \d)"
    r"|nelle prossime <n> ore",
    r"(?:restano|mancano|rimangono) (?:solo )?<n> (?:ore|minuti)",
    # Portuguese
    r"(?:só|apenas|somente) até (?:amanhã|domingo|o? ?dia \d)",
    r"(?:só|apenas|somente) hoje|hoje (?:só|apenas)|até (?:a |à )?meia[- ]noite|só neste fim de semana"
    r"|só (?:por|durante) <n> horas?",
    r"(?:acaba|termina|expira) (?:hoje|amanhã|em <n> |às \d|no domingo|dia \d)|nas próximas <n> horas"
    r"|restam <n> (?:horas|minutos|dias)",
    # Dutch
    r"alleen tot (?:morgen|zondag|\d)",
    r"alleen (?:vandaag|vanavond|dit weekend|deze week)|vandaag alleen|tot middernacht",
    r"(?:nog maar|alleen de komende) <n> (?:uur|uren|minuten|dagen)\b(?! per)|nog <n> (?:uur|uren|minuten"
    r"|dagen) (?:geldig|over\b)",
    r"(?:eindigt|verloopt) (?:vandaag|vanavond|morgen|over <n> |om \d|zondag|op \d)",
    # Arabic
    r"(?:ل)?اليوم فقط|فقط اليوم|حتى منتصف الليل|نهاية (?:هذا )?الأسبوع فقط",
    r"لمدة (?:<n> )?(?:ساعة|ساعتين|ساعات|دقيقة|دقائق|يوم|يومين|أيام) فقط",
    r"(?:ينتهي|تنتهي)(?: العرض)? (?:اليوم|الليلة|غدا|(?:خلال|بعد|في غضون) (?:<n> )?(?:ساع|دقيق|دقائق|أيام|يوم)"
    r"|الساعة)",
    r"(?:تبقى|بقي|متبقي|تبقت) (?:<n> )?(?:ساعات|ساعة|ساعتان|دقائق|أيام)|خلال (?:ال)?<n> (?:ساعات|دقائق) القادمة",
)

CROWD: Final = (  # what other people do: nothing bears it out
    # English
    r"(?<!you\x20)(?<!you\x20have\x20)(?:booked|bought|viewed|ordered|sold) <n> times|\d{2,}(?:[.,]\d{3})? sold\b",
    r"in <n> (?:other )?(?:carts|baskets)|popular choice|customers love|(?:#1|number one) (?:choice|seller"
    r"|brand)|top(?: |-)?rated",
    r"(?:<n>|many|other) (?:other )?(?:people|others|customers|shoppers|users|visitors|travell?ers|players|learners"
    r"|buyers|students|members) (?:are|have (?:already |just |also )?(?:bought|booked|viewed|ordered|chosen"
    r"|joined|looked|added|this|it)|were|just|also|already|bought|viewed|booked|ordered|chose|love|like"
    r"|want|looked)\b(?! (?:needed|enough))",
    r"(?:others|people|someone|customers) (?:is |are )?(?:also |currently )?(?:looking at|viewing|watching"
    r"|eyeing) (?:this|it)",
    r"best(?: |-)?sell(?:er|ers|ing)|top(?: |-)sell(?:er|ers|ing)|most popular|popular (?:right )?now|trending"
    r"|hot right now",
    r"favou?rite of the (?:week|month|day)|(?:customers?'?s?'?|crowd|fan) favou?rite|people's choice"
    r"|everyone(?:'s| is) (?:buying|talking|playing|getting)",
    r"(?:loved|trusted|used|chosen|bought|recommended|rated|played) by (?:over |more than )?(?:\d{3,}"
    r"|\d+[.,]\d{3}|hundreds|thousands|millions|many\b)",
    r"(?:thousands|millions|hundreds) of (?:\w+ )?(?:people|customers|users|players|learners|travell?ers"
    r"|shoppers|buyers)",
    r"join (?:over |more than )?(?:<n> (?:\w+ )?(?:people|others|customers|players|learners|members)|thousands"
    r"|millions)|someone (?:in \w+ )?(?:has )?just (?:bought|booked|ordered)",
    r"<n> (?:sold|booked|bought) (?:today|this|in the last|already)|(?:others|customers|people) also (?:bought"
    r"|viewed|liked)|in high demand",
    # German
    r"von <n> (?:personen|menschen|leuten|anderen|kunden|nutzern|spielern) (?:angesehen|gekauft|gebucht|bestellt)",
    r"(?:<n>|viele|andere) (?:andere )?(?:personen|menschen|leute|andere|kunden|kundinnen|nutzer|besucher"
    r"|käufer|spieler|lernende|reisende)"
    r" (?:sehen|schauen|haben|kauf|betracht|interessier|buch|sind|warten|lieben|wollen)(?! (?:nötig"
    r"|erforderlich|platz))",
    r"bestseller|verkaufsschlager|topseller|publikumsliebling|kundenliebling|liebling (?:der woche|des monats)",
    r"meist(?:verkauft|gekauft|gebucht|gespielt)|beliebteste|am beliebtesten|(?:sehr|stark) gefragt"
    r"|heiß begehrt|liegt im trend|gerade angesagt",
    r"(?:tausende|millionen|hunderte) (?:von )?(?:kunden|menschen|nutzern?|spielern?|leute|lernende)"
    r"|kauften auch|(?:jemand|wurden?|kund\w+)\b[^.!?]{0,20} gerade (?:gekauft|gebucht|bestellt)",
    # French
    r"(?:<n>|d') ?(?:personnes|clients|autres|acheteurs|visiteurs|joueurs|voyageurs|utilisateurs) (?:regardent"
    r"|ont|consultent|viennent|achètent|sont|l'ont)",
    r"meilleures? ventes?|best-sellers?|les? plus (?:vendu|populaire|demandé|acheté|réservé)|très demandé"
    r"|coup de cœur (?:de la semaine|des clients|du moment)",
    r"(?:milliers|millions) de (?:clients|personnes|joueurs|utilisateurs|voyageurs)|quelqu'un vient (?:de |d')"
    r"|ont aussi (?:acheté|aimé|regardé)|plébiscité",
    # Spanish
    r"(?:<n>|otras|muchas) (?:personas|clientes|usuarios|compradores|viajeros|jugadores) (?:están|han|ven|miran"
    r"|lo |la |ya |compra|reserva)",
    r"más vendid[oa]s?|superventas|éxito de ventas|más populares?|muy demandad[oa]|favorit[oa] de (?:la semana"
    r"|los clientes)|alguien acaba de",
    r"(?:miles|millones) de (?:personas|clientes|usuarios|jugadores|viajeros)|también (?:compraron|vieron)",
    # Italian
    r"(?:<n>|altre|altri) (?:persone|clienti|utenti|viaggiatori|giocatori)? ?(?:stanno guardando|stanno|hanno"
    r"|guardano|lo stanno)",
    r"più vendut[oiae]|più popolar[ei]|molto richiest[oaie]|preferit[oiae] (?:della settimana|dai clienti)"
    r"|qualcuno ha appena",
    r"(?:migliaia|milioni) di (?:persone|clienti|utenti|giocatori|viaggiatori)|hanno (?:comprato|acquistato"
    r"|guardato) anche",
    # Portuguese
    r"(?:<n>|outras|muitas) (?:pessoas|clientes|usuários|utilizadores|viajantes|jogadores) (?:estão|têm|viram"
    r"|compraram|já|veem)",
    r"mais vendid[oa]s?|campe(?:ão|ões) de vendas|muito procurad[oa]|favorit[oa] da semana|alguém acabou de"
    r"|(?:milhares|milhões) de (?:pessoas|clientes|jogadores)",
    r"também compraram",
    # Dutch
    r"(?:<n>|andere|veel) (?:mensen|anderen|klanten|bezoekers|spelers|reizigers|gebruikers) (?:bekijken|kijken"
    r"|hebben|kochten|boekten|zijn)",
    r"best verkochte?|meest (?:verkochte?|populaire?|gekozen|geboekte?)|populairste|veelgevraagd"
    r"|favoriet van de week|kochten ook",
    r"(?:duizenden|miljoenen) (?:mensen|klanten|spelers|gebruikers)|iemand heeft (?:net|zojuist)",
    # Arabic
    r"<n> (?:شخص|أشخاص|شخصا|عميل|عملاء|مستخدم|زائر|زوار|لاعب|لاعبين) (?:يشاهد|يتصفح|اشترى|اشتروا|حجز|ينظر|يفكر)",
    r"(?:الأكثر|الأعلى) (?:مبيعا|رواجا|شعبية|طلبا|شراء|حجزا)|رائج (?:الآن|اليوم)|(?:آلاف|ملايين) (?:الأشخاص"
    r"|العملاء|اللاعبين|المستخدمين)",
    r"(?:شخص|أحدهم) (?:ما )?(?:اشترى|حجز) للتو|الجميع (?:يشتري|يحب)|يشاهده? (?:آخرون|غيرك)",
)
