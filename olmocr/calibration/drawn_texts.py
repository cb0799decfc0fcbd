"""The texts of the drawn pages: sentences, and words to put into them, as data.

All of it was invented for this file. It uses only letters of WinAnsi, which the fonts of every PDF reader have.
"""

from __future__ import annotations

ENGLISH = (
    "Beeswax melts at a low heat, and it should never be left over an open flame.",
    "The glass furnace was lit on a Monday and could not be put out before the contract ended.",
    "Whoever borrows the ladder must enter his name, the hour, and the room in which it will stand.",
    "Our tailor measures twice, chalks once, and refuses to discuss velvet with anybody.",
    "A pump of this size moves forty litres each minute if the filter is rinsed every week.",
    "Tenants may paint the inner walls in any colour; the stairwell remains white.",
    "He had paid the tax on three windows, although the house had five.",
    "The museum lends its plaster casts to schools, but not the marble hand.",
    "Please send two copies of the form, one signed in ink and one without a signature.",
    "Wool from the upland farms is coarse, warm, and almost impossible to dye.",
    "No witness could remember which of the twins had opened the safe.",
    "It rained during the final act, so the audience moved beneath the balcony and stayed.",
    "Copper pipes turn green within a decade; this does not harm the water.",
    "The printer asks for payment before delivery, since paper has become expensive again.",
    "My grandfather spelled his own name in four different ways, and all were accepted.",
    "Read the thermometer at noon, in the shade, and write the figure on the card.",
    "A narrow stair leads from the vault to the choir, where the ropes of the bells hang.",
    "Salt, vinegar and patience will remove most stains from linen.",
    "The jury took less than an hour and asked for nothing except a pot of coffee.",
    "Every parcel above ten kilograms needs a second label on its underside.",
    "She learned to drive on the frozen lake, where there was nothing to collide with.",
    "Members who arrive late are kindly requested to use the side entrance.",
    "The dictionary gives eleven meanings of the verb, and the poet has used a twelfth.",
    "Do not shake the bottle; turn it slowly until the sediment has dissolved.",
    "An inspector visited the quarry in June and found that the fence was missing.",
    "Goats prefer the steep side of the valley, which is why the cheese is better there.",
    "If the lamp flickers, tighten the lower screw before you replace the bulb.",
    "The treaty was signed on a Sunday, in pencil, and copied the next morning.",
    "All instruments were tuned to the oboe, except the piano, which had been painted shut.",
    "Half of the seed was sown deep and half of it shallow, as an experiment.",
    "The council will vote on parking fees, street lamps, and the name of the new school.",
    "Ask for the blue folder, not the grey one, when you reach the second counter.",
    "The dentist keeps a parrot in the waiting room; it imitates the drill.",
    "This coupon is valid until the end of the season and cannot be exchanged for cash.",
    "Sailcloth was dearer than timber that year, so the mill built fewer and larger wings.",
    "The interpreter lowered her voice whenever the minister raised his.",
    "Bricks from the older kiln are lighter in weight and darker in colour.",
    "Visitors often mistake the pumping station for a chapel, and some leave flowers.",
    "Rice should be rinsed until the water runs clear, then rested for half an hour.",
    "A second opinion costs nothing and is usually the same as the first.",
    "The expedition carried eleven barometers, of which only two ever agreed.",
    "Nobody is allowed to feed the swans, yet the swans are remarkably fat.",
    "Chalk dust had settled on the violin, and the lesson was given in silence.",
    "We regret that the lift is out of service and that the stairs are being cleaned.",
    "Each knot has a left and a right form; the manual describes neither of them well.",
    "The widow sold the brewery, kept the horses, and moved to a town without a hill.",
    "Tickets bought online are checked at the door together with a proof of age.",
    "When the varnish is dry, rub it gently with a cloth that leaves no fibres.",
    "Anyone may photograph the façade, but the café inside asks for a fee of €3.",
    "The cartographer left the island blank because his ink had run out.",
    "Before the strike, letters crossed the city in forty minutes by pneumatic tube.",
    "Her thesis concerns the grammar of recipes, which have no tense and no subject.",
    "Do you still own the deed, or was it lost with the other papers?",
    "Iron gates rust from the bottom up, wooden ones from the top down.",
    "A cheque without a date is void; a date without a cheque is merely sad.",
    "They rehearsed the fire drill so often that nobody moved when the roof burned.",
    "Moss indicates damp, lichen indicates clean air, and nettles indicate people.",
    "The ferryman\u2019s dog crosses free of charge, and so does any passenger who carries it.",
    "In the reading room, pens are forbidden; pencils are lent at the desk.",
    "Fold the sheet along the dotted line, then cut away the shaded triangle.",
    "The orchestra owed its conductor nine weeks\u2019 wages and a new umbrella.",
    "Fresh plaster needs four weeks to dry \u2013 longer in winter, and never near a stove.",
    "What the guide calls a Roman bath was built as a laundry in 1903.",
    "Sheep were counted twice, once by the shepherd and once by his creditors.",
    "Our records show that you have not returned the projector (inventory no. 0417).",
    "The first edition has a misprint on every page; the second corrects it to another.",
    "Leave the key with the porter unless the porter is you.",
    "To vote by post, sign both envelopes and seal only the smaller one.",
    "The apprentice swept the floor, oiled the lathe, and went home by moonlight.",
    "Sugar dissolves faster in hot tea; gossip dissolves in nothing at all.",
    "At the border they weighed the luggage and estimated the passengers.",
    "The laboratory reports a purity of 99.7 %, with traces of zinc and nickel.",
    "Swallows nest under the eaves of the courthouse, above the heads of the accused.",
    "A motion to adjourn was carried by seven votes to five, with one abstention.",
    "The well is deeper than the tower is high, as far as anyone has measured.",
    "Store the film below 18 °C and away from onions.",
    "The baroness played chess by telegraph and lost a castle in the process.",
    "Old wallpaper comes off easily with steam; older wallpaper lies beneath it.",
)

TEMPLATES = (
    "On {date} {name} sold {number} {things} to the {trade} of {town} for {money}.",
    "The {trade} {name} received {money} and gave back {things} worth {money}.",
    "Of {number} {things} that were counted in {town}, {number} had been repaired before {year}.",
    "{name} and {name} share a workshop in {town}; the first makes {things}, the second mends them.",
    "Article {number}: {things} may be stored for {number} days, after which the {trade} may claim them.",
    "In {year} the {trade} moved to {town}, where {things} were cheaper by {percent}.",
    "According to {name}, the {things} lost {percent} of their weight between {date} and the end of the year.",
    "See also {name} ({year}), page {number}, and the note on {things} by {name}.",
    "The distance from {town} to {town} is {number} kilometres, or {number} with the detour.",
    "Parcel {code} holds {number} {things}; parcel {code} was never opened.",
    "\u201cI have never seen such {things},\u201d said {name}, \u201cand I was the {trade} for {number} years.\u201d",
    "{name} \u2013 once {trade} of {town} \u2013 wrote {number} letters about {things}.",
    "Please remit {money} by {date}, quoting {code}; the {trade} will send the {things} to {town}.",
    "Table {number} compares {things} from {town} and {town}; the latter are {percent} heavier.",
    "The estate of {name} includes {number} {things}, a house in {town}, and debts of {money}.",
    "From {year} to {year} the number of {things} in {town} rose from {number} to {number}.",
    "Dear {name}, your {things} (order {code}) left {town} on {date} and should have arrived.",
    "Chapter {number} describes how {name}, a {trade}, mended {things} with nothing but wax.",
    "No {trade} in {town} would pay more than {money} for {things} made before {year}.",
    "The hearing of {date} was postponed because {name}, the {trade}, had gone to {town}.",
)

TRADES = (
    *("auctioneer", "bookbinder", "chemist", "glazier", "notary", "surveyor", "veterinary", "wheelwright", "beekeeper"),
    *("locksmith", "midwife", "organist", "publisher", "saddler", "translator", "upholsterer"),
)

THINGS = (
    *("copper kettles", "maps", "umbrellas", "hinges", "violins", "barrels", "lenses", "carpets", "ploughs", "stamps"),
    *("microscopes", "saddles", "chimney pots", "gloves", "typewriters", "anchors", "candlesticks", "jars of honey"),
)

SYLLABLES = (
    *("bra", "cor", "dal", "el", "fin", "gor", "hal", "ix", "jor", "kel", "lum", "mar", "nev", "os", "pel", "quil"),
    *("ros", "sten", "tur", "ul", "ver", "wend", "yar", "zol"),
)

HEADINGS = (
    *("Terms of Delivery", "Notes on the Estate", "Annual Meeting", "How to Apply", "Warranty", "Household Accounts"),
    *("Instructions for Use", "From the Archive", "Questions and Answers", "Visiting Hours", "Correspondence"),
    *("Safety Rules", "List of Exhibits", "The Second Expedition", "Summary of Findings", "Letters to the Editor"),
)

ITEMS = (
    *("a passport, or a letter from your employer", "one pair of dry boots", "two blankets and a whistle"),
    *("the receipt for the deposit", "string, wax and a sharp knife", "a map at a scale of 1:25,000"),
    *("a list of allergies, if there are any", "no food that must be kept cold", "the key of the locker"),
    *("spare batteries (four of them)", "an envelope with your address", "the meter reading of last month"),
)

STEPS = (
    *("Unplug the device and wait ten minutes.", "Loosen both clamps by half a turn.", "Pour off the cooling water."),
    *("Lift out the basket and rinse it.", "Grease the seal very thinly.", "Put the basket back, handle first."),
    *("Close the clamps crosswise.", "Run the machine empty for one cycle.", "Enter the date in the logbook."),
)

LABELS = (
    *("Policy", "Invoice", "Part No.", "Account", "Licence", "Passport", "Chassis", "Lot", "Consignment", "Reference"),
    *("Tracking", "Register", "Contract", "Sample", "Form", "Locker", "Case"),
)

COLUMNS = ("Units", "Price", "Sum", "Weight", "Date", "Share", "Code", "Year")

GOODS = (
    *("Kettle", "Hinge", "Lens", "Saddle", "Stamp", "Glove", "Barrel", "Carpet", "Anchor", "Violin", "Plough", "Jar"),
    *("Ladder", "Funnel", "Chisel", "Mirror", "Bellows", "Bobbin", "Thimble", "Trowel"),
)

GERMAN = (
    "Der Schlüssel hängt über der Tür, der Zähler befindet sich im Keller.",
    "Größere Beträge überweisen wir erst nach schriftlicher Bestätigung durch beide Käufer.",
    "Die Mühle mahlt nur, wenn der Bach genügend Wasser führt; im März steht sie meist still.",
    "Bitte füllen Sie das Formular vollständig aus und schicken Sie es bis zum 15. Juni zurück.",
    "Für Schäden an fremden Möbeln haftet, wer sie verursacht hat.",
    "Übrigens hört man die Züge nachts deutlicher als am Tag.",
    "Der Gärtner schneidet die Äste schräg, damit der Regen abläuft.",
    "Zwölf Schüler fehlten, weil die Straße vereist war.",
    "Das Gemälde wurde 1874 gekauft und seither zweimal gereinigt.",
    "Ob der Käse reif ist, erkennt man am Geruch, nicht am Datum.",
    "Wer den Zug um 6.40 Uhr versäumt, wartet bis zum Abend.",
    "Die Hebamme wohnte über der Bäckerei und kannte jedes Haus im Tal.",
    "Öl und Essig dürfen erst kurz vor dem Essen vermischt werden.",
    "Nach § 12 der Satzung genügt eine einfache Mehrheit der Anwesenden.",
    "Im Herbst ließ der Müller das Rad ausbessern und die Schaufeln erneuern.",
    "Bücher, die länger als vier Wochen fehlen, gelten als verloren.",
    "Kein Mensch weiß, weshalb die Brücke an dieser Stelle gebaut wurde.",
    "Füße abtreten, Hut abnehmen, leise sprechen!",
    "Für 3.250 € erhielt sie zwei Öfen, eine Säge und das Versprechen, schweigen zu dürfen.",
    "Täglich außer montags zeigt der Wärter den Gästen die größte Glocke.",
)

FRENCH = (
    "Le facteur passe vers midi, sauf le samedi où il ne vient pas du tout.",
    "Les élèves ont planté trois pêchers derrière la cour de récréation.",
    "Veuillez présenter votre pièce d'identité à l'entrée du bâtiment.",
    "Après la récolte, le sol doit être retourné une fois, jamais deux.",
    "Le garçon avait caché la clé sous une tuile près de la fenêtre.",
    "Ça ne coûte que 18 francs, répondit-elle, et c'est déjà trop cher.",
    "La forêt appartient à la commune depuis la fin du siècle passé.",
    "Un menuisier réparera les volets dès que le bois sera sec.",
    "Où étiez-vous la nuit du vol ? demanda le juge à voix basse.",
    "Le théâtre restera fermé jusqu'à nouvel ordre à cause des travaux.",
    "Le maître d'école collectionne les timbres étrangers et les vieilles boussoles.",
    "Aucun colis ne sera accepté après 17 h 30.",
    "L'hôtel a changé de nom trois fois sans jamais changer de clientèle.",
    "Il faut battre les œufs longtemps, puis ajouter le sucre peu à peu.",
    "Malgré la sécheresse, la rivière n'a pas cessé de couler.",
    "Les dépenses s'élèvent à 2 418,60 € pour l'année écoulée.",
    "Elle préfère écrire à la plume, même quand l'encre gèle.",
    "Chaque dimanche, l'évêque traverse la ville à bicyclette.",
    "Le musée possède une clé dont personne ne connaît la serrure.",
    "Dès l'aube, les pêcheurs vendent leurs paniers sur le quai.",
)

SPANISH = (
    "El niño contó las estrellas hasta que se quedó dormido en el balcón.",
    "La cosecha de este año será mejor, según dicen los más viejos.",
    "¿Quién dejó abierta la puerta del almacén durante la tormenta?",
    "Se ruega no apoyar bicicletas en la pared recién pintada.",
    "Compró diez metros de paño y pagó únicamente ocho.",
    "El médico llegará mañana en el tren de las siete y media.",
    "Ningún pasajero podrá subir al autobús sin mostrar su billete.",
    "La señora Ibáñez enseñó música durante cuarenta años.",
    "Aquí empieza el camino más corto, pero también el más empinado.",
    "¡Qué lástima que nadie haya guardado las cartas!",
    "El farol de la esquina se apaga solo cuando llega el otoño.",
    "Para obtener el título hay que aprobar dos exámenes orales.",
    "Mi tío reparó el órgano de la iglesia sin cobrar un céntimo.",
    "Los trenes de mercancías circulan únicamente por la noche.",
    "El pañuelo bordado perteneció a una actriz muy célebre.",
    "Según el último informe, la producción creció un 4,8 % en enero.",
    "Añada el azúcar, remueva despacio y deje enfriar la mezcla.",
    "Todavía no sabemos cuándo volverá a abrirse el túnel.",
    "Más vale llegar tarde que perder el equipaje.",
    "La biblioteca cerró temprano porque faltó la luz.",
)

ITALIAN = (
    "La bottega è chiusa perché il sarto è andato alla fiera.",
    "Il vino nuovo si beve già a novembre, quello vecchio può aspettare.",
    "Ogni lunedì il mercato occupa metà della piazza.",
    "Non si può entrare senza aver firmato il registro all'ingresso.",
    "Più tardi scoprirono che la mappa era stata stampata alla rovescia.",
    "Il maestro corregge i compiti a matita, mai con l'inchiostro rosso.",
    "La città ha comprato due tram usati e li ha dipinti di verde.",
    "Chi perde la ricevuta dovrà pagare un'altra volta.",
    "Sotto il portico c'è ancora l'insegna della vecchia farmacia.",
    "Nessuno sa da dove provenga la statua, né chi l'abbia scolpita.",
    "La locanda offre dodici letti, una stalla e un'ottima minestra.",
    "È vietato appoggiare scale alla facciata del municipio.",
    "Il ponte di legno fu sostituito nel 1911 con uno di ferro.",
    "Mia nonna conservava le lettere in una scatola di biscotti.",
    "Quando nevica, il postino consegna i pacchi con la slitta.",
    "Il prezzo comprende il viaggio, ma non la cena né l'assicurazione.",
    "Perciò il notaio rifiutò di leggere il testamento ad alta voce.",
    "Le olive si raccolgono a mano, dal basso verso l'alto.",
    "L'orologio della stazione è fermo alle quattro e un quarto.",
    "Giovedì prossimo il consiglio voterà il nuovo regolamento.",
)

LANGUAGES = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "it": ITALIAN}
"""The languages, by their codes in the front matter."""
