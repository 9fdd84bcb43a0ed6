"""Tables behind the facts that ship with palimpsest: well-known true facts, written for this project.

A table is a block of records, one a line or several on a line with ";" between them; the fields of a record are
separated by "|", and other spellings of an answer follow it after "/". A field "-" is left out because the world has
no single answer for it. A field that starts with "~" is true and serves look-ups and probes, but makes no fact of its
own: it was a candidate beyond the number that ships. Which candidates ship was chosen with the answers of one small
model in view, so the file says nothing about how much any model knows in general.
"""

from __future__ import annotations

# country | capital | continent | official language | currency
COUNTRIES = """
France|Paris|Europe|French|euro/Euro; Germany|Berlin|Europe|German|euro/Euro; Italy|Rome|Europe|Italian|euro/Euro
Spain|Madrid|Europe|Spanish|euro/Euro; Portugal|Lisbon|Europe|Portuguese|~euro/Euro
Greece|Athens|~Europe|Greek|euro/Euro; Austria|Vienna|~Europe|German|euro/Euro; Ireland|Dublin|~Europe|-|~euro/Euro
Finland|Helsinki|~Europe|-|~euro/Euro; Netherlands|~Amsterdam|~Europe|~Dutch|~euro
Belgium|Brussels|~Europe|-|~euro/Euro; Slovakia|Bratislava|~Europe|Slovak|~euro/Euro
Poland|Warsaw|~Europe|Polish|zloty/złoty; Hungary|Budapest|~Europe|Hungarian|forint
Sweden|Stockholm|~Europe|Swedish|krona; Norway|Oslo|~Europe|~Norwegian|krone; Denmark|Copenhagen|~Europe|~Danish|~krone
Iceland|Reykjavik|~Europe|Icelandic|~krona; Romania|Bucharest|~Europe|Romanian|leu; Bulgaria|Sofia|~Europe|~Bulgarian|-
Ukraine|Kyiv/Kiev|~Europe|~Ukrainian|hryvnia; Switzerland|Bern|~Europe|-|franc; Russia|Moscow|-|Russian|ruble/rouble
Croatia|~Zagreb|~Europe|Croatian|~euro/Euro; Serbia|Belgrade|~Europe|Serbian|dinar
Albania|~Tirana|~Europe|Albanian|~lek; Turkey|~Ankara|-|Turkish|~lira; England|London|~Europe|English|pound
Scotland|Edinburgh|~Europe|-|~pound; United Kingdom|~London|~Europe|~English|~pound; Japan|Tokyo|Asia|~Japanese|yen
China|Beijing|Asia|Mandarin/Chinese|yuan/renminbi; India|~New Delhi/Delhi|Asia|-|rupee
South Korea|Seoul|Asia|~Korean|~won; North Korea|Pyongyang|Asia|~Korean|~won; Thailand|Bangkok|Asia|Thai|~baht
Vietnam|~Hanoi|~Asia|Vietnamese|~dong; Indonesia|~Jakarta|~Asia|~Indonesian|rupiah
Malaysia|~Kuala Lumpur|~Asia|~Malay|~ringgit; Philippines|~Manila|~Asia|-|~peso; Pakistan|~Islamabad|Asia|-|~rupee
Bangladesh|~Dhaka|~Asia|~Bengali/Bangla|~taka; Nepal|~Kathmandu|~Asia|Nepali|~rupee; Sri Lanka|-|~Asia|-|~rupee
Mongolia|~Ulaanbaatar|~Asia|Mongolian|~tugrik; Cambodia|~Phnom Penh|~Asia|Khmer|~riel
Iran|~Tehran|~Asia|~Persian/Farsi|~rial; Iraq|~Baghdad|~Asia|-|~dinar; Saudi Arabia|~Riyadh|~Asia|Arabic|~riyal
Jordan|~Amman|~Asia|~Arabic|~dinar; Lebanon|~Beirut|~Asia|~Arabic|~pound; Syria|~Damascus|~Asia|~Arabic|~pound
Israel|-|~Asia|Hebrew|~shekel; Afghanistan|~Kabul|~Asia|-|~afghani; Egypt|~Cairo|Africa|~Arabic|~pound
Kenya|~Nairobi|Africa|-|~shilling; Nigeria|~Abuja|Africa|~English|~naira; Ethiopia|~Addis Ababa|Africa|-|~birr
Ghana|~Accra|Africa|~English|~cedi; Morocco|~Rabat|Africa|-|~dirham; Algeria|~Algiers|~Africa|-|~dinar
Tunisia|~Tunis|~Africa|~Arabic|~dinar; Libya|~Tripoli|~Africa|~Arabic|~dinar; Sudan|~Khartoum|~Africa|-|~pound
South Africa|-|~Africa|-|~rand; Zimbabwe|~Harare|~Africa|-|-; Uganda|~Kampala|~Africa|-|~shilling
Tanzania|~Dodoma|~Africa|-|~shilling; Senegal|~Dakar|~Africa|French|~franc; Angola|~Luanda|~Africa|~Portuguese|~kwanza
Mozambique|~Maputo|~Africa|~Portuguese|~metical; Rwanda|~Kigali|~Africa|-|~franc
Brazil|~Brasilia/Brasília|South America|~Portuguese|~real; Argentina|~Buenos Aires|South America|~Spanish|peso
Chile|~Santiago|South America|~Spanish|~peso; Peru|~Lima|South America|-|~sol
Colombia|~Bogota/Bogotá|~South America|~Spanish|~peso; Venezuela|~Caracas|~South America|~Spanish|~bolivar
Ecuador|~Quito|~South America|~Spanish|~dollar; Uruguay|~Montevideo|~South America|~Spanish|~peso
Canada|~Ottawa|North America|-|~dollar; Mexico|-|North America|~Spanish|peso; Cuba|~Havana|North America|~Spanish|~peso
Jamaica|~Kingston|North America|~English|~dollar; Costa Rica|~San José/San Jose|North America|~Spanish|~colon
Honduras|~Tegucigalpa|North America|~Spanish|~lempira; United States|~Washington|~North America|~English|~dollar
Australia|~Canberra|-|~English|~dollar; New Zealand|~Wellington|-|-|~dollar
"""

# city | country | something else the city is known for
CITIES = """
Munich|Germany|beer; Lyon|France|food; Nice|France|beaches; Milan|Italy|fashion; Turin|Italy|car industry
Barcelona|Spain|architecture; Porto|Portugal|wine; Manchester|England|football; Liverpool|England|music
Osaka|Japan|food; Shanghai|China|skyline; Mumbai|India|film industry; Karachi|Pakistan|port
Busan|South Korea|film festival; Istanbul|Turkey|mosques; Sydney|Australia|opera house; Toronto|Canada|film festival
Rio de Janeiro|Brazil|carnival; Cancun|Mexico|beaches; Johannesburg|South Africa|gold; Alexandria|Egypt|library
Casablanca|Morocco|port; St. Petersburg|Russia|palaces; Krakow|Poland|castle; Geneva|Switzerland|watches
Salzburg|Austria|music; Bergen|Norway|fjords; Thessaloniki|Greece|food; Glasgow|Scotland|music
Auckland|New Zealand|sailing
"""

# US state | capital | something else the state is known for
STATES = """
Massachusetts|Boston|universities; Georgia|Atlanta|peaches; Texas|Austin|oil; Colorado|Denver|mountains
Arizona|Phoenix|deserts; California|Sacramento|beaches; Tennessee|Nashville|music; Hawaii|Honolulu|volcanoes
Utah|Salt Lake City|salt flats; Louisiana|Baton Rouge|jazz; Florida|Tallahassee|oranges; Alaska|Juneau|glaciers
Ohio|~Columbus|industry; Michigan|~Lansing|lakes; Illinois|Springfield|corn; Minnesota|~Saint Paul/St. Paul|lakes
Wisconsin|Madison|cheese; Washington|~Olympia|apples; Oregon|~Salem|forests; Idaho|Boise|potatoes
Montana|~Helena|mountains; Nevada|Carson City|casinos; New Mexico|~Santa Fe|deserts; Virginia|~Richmond|tobacco
Maryland|~Annapolis|crabs; Pennsylvania|~Harrisburg|steel; Connecticut|~Hartford|insurance
Vermont|~Montpelier|maple syrup; Maine|~Augusta|lobsters; Alabama|~Montgomery|cotton; Mississippi|~Jackson|blues
Arkansas|~Little Rock|rice; Kansas|~Topeka|wheat; Nebraska|~Lincoln|corn; Iowa|~Des Moines|corn
New York|~Albany|apples; Missouri|~Jefferson City|barbecue; Kentucky|~Frankfort|horses; North Carolina|~Raleigh|tobacco
Delaware|~Dover|chickens
"""

# US city | state | something else the city is known for
STATE_CITIES = """
Chicago|Illinois|architecture; Houston|Texas|space centre; Los Angeles|California|film industry; Miami|Florida|beaches
Jacksonville|Florida|beaches; Seattle|Washington|coffee; Portland|Oregon|roses; Las Vegas|Nevada|casinos
Philadelphia|Pennsylvania|cheesesteaks; Detroit|Michigan|cars; Cleveland|Ohio|rock music; Milwaukee|Wisconsin|beer
Minneapolis|Minnesota|lakes; New Orleans|Louisiana|jazz; Memphis|Tennessee|blues; Baltimore|Maryland|crabs
Tucson|Arizona|deserts; Albuquerque|New Mexico|balloons; Omaha|Nebraska|steaks; Wichita|Kansas|aircraft
Boulder|Colorado|mountains; Savannah|Georgia|squares; Charlotte|North Carolina|banks; Buffalo|New York|chicken wings
Louisville|Kentucky|horse racing
"""

# landmark (all take "the") | city | country | century in which building began
LANDMARKS = """
Eiffel Tower|Paris|France|nineteenth; Colosseum|Rome|Italy|first; Statue of Liberty|New York|United States|nineteenth
Golden Gate Bridge|San Francisco|United States|twentieth
White House|Washington/Washington, D.C.|United States|eighteenth
Lincoln Memorial|Washington/Washington, D.C.|United States|twentieth; Space Needle|Seattle|United States|twentieth
Willis Tower|Chicago|United States|twentieth; Gateway Arch|St. Louis|United States|twentieth
Hollywood Sign|Los Angeles|United States|twentieth; Alamo|San Antonio|United States|eighteenth
Tower Bridge|London|England|nineteenth; Brandenburg Gate|Berlin|Germany|eighteenth
Bolshoi Theatre|Moscow|Russia|nineteenth; Taj Mahal|Agra|India|seventeenth; Red Fort|Delhi|India|seventeenth
Oriental Pearl Tower|Shanghai|China|twentieth; Parthenon|Athens|Greece|fifth
Sagrada Familia|Barcelona|Spain|nineteenth; Prado Museum|Madrid|Spain|eighteenth; Alhambra|Granada|Spain|thirteenth
Hagia Sophia|Istanbul|Turkey|sixth; Burj Khalifa|Dubai|United Arab Emirates|twenty-first
Rijksmuseum|Amsterdam|Netherlands|nineteenth; Uffizi Gallery|Florence|Italy|sixteenth
Rialto Bridge|Venice|Italy|sixteenth
"""

# dish | country it comes from | main ingredient
DISHES = """
sushi|Japan|rice; ramen|Japan|noodles; sashimi|Japan|fish; pizza|Italy|dough; lasagna|Italy|pasta; risotto|Italy|rice
gnocchi|Italy|potatoes; paella|Spain|rice; gazpacho|Spain|tomatoes; ratatouille|France|vegetables
bouillabaisse|France|fish; foie gras|France|liver; bratwurst|Germany|meat; schnitzel|Austria|meat; goulash|Hungary|meat
tacos|Mexico|tortillas; guacamole|Mexico|avocados; pad thai|Thailand|noodles
"""

# company | country of its headquarters | what it is best known for making or selling
COMPANIES = """
Toyota|Japan|cars; Honda|Japan|cars; Nissan|Japan|cars; Samsung|South Korea/Korea|phones; BMW|Germany|cars
Volkswagen|Germany|cars; Audi|Germany|cars; Ferrari|Italy|sports cars; Fiat|Italy|cars; Prada|Italy|handbags
Renault|France|cars; Peugeot|France|cars; Volvo|Sweden|cars; Lego|Denmark|toys; Huawei|China|phones
Tencent|China|games; Tata Motors|India|cars; Petrobras|Brazil|oil; Embraer|Brazil|aircraft; Qantas|Australia|flights
"""

# person | country of birth | profession | sport | instrument
PEOPLE = """
Albert Einstein|Germany|physicist/scientist|-|-; Isaac Newton|England|physicist/mathematician/scientist|-|-
Marie Curie|Poland|physicist/chemist/scientist|-|-; Galileo Galilei|Italy|astronomer|-|-
Charles Darwin|~England|naturalist/biologist|-|-; Stephen Hawking|~England|physicist|-|-
Niels Bohr|Denmark|~physicist|-|-; Johannes Kepler|Germany|~astronomer|-|-; Nicolaus Copernicus|Poland|~astronomer|-|-
Alfred Nobel|Sweden|chemist|-|-; Carl Jung|Switzerland|psychologist/psychiatrist|-|-
Friedrich Nietzsche|~Germany|philosopher|-|-; René Descartes|France|philosopher|-|-
Voltaire|~France|writer/philosopher|-|-; Plato|Greece|philosopher|-|-; Aristotle|~Greece|philosopher|-|-
Socrates|Greece|~philosopher|-|-; John Locke|England|~philosopher|-|-; Confucius|China|~philosopher|-|-
Adam Smith|~Scotland|economist|-|-; Vincent van Gogh|~Netherlands|painter/artist|-|-
Claude Monet|~France|painter/artist|-|-; Pablo Picasso|Spain|painter/artist|-|-; Frida Kahlo|Mexico|~painter/artist|-|-
Edvard Munch|Norway|~painter/artist|-|-; William Shakespeare|~England|playwright|-|-
Charles Dickens|~England|novelist/writer|-|-; Leo Tolstoy|Russia|~novelist/writer|-|-
Fyodor Dostoevsky|~Russia|novelist/writer|-|-; Dante Alighieri|~Italy|poet|-|-; Emily Dickinson|~United States|poet|-|-
Walt Whitman|~United States|poet|-|-; Pablo Neruda|Chile|~poet|-|-; Robert Burns|Scotland|~poet|-|-
Gabriel García Márquez|Colombia|~novelist/writer|-|-; Mark Twain|~United States|novelist/writer|-|-
Wolfgang Amadeus Mozart|Austria|~composer|-|-; Ludwig van Beethoven|~Germany|composer|-|-
Frédéric Chopin|~Poland|composer|-|piano; Pyotr Ilyich Tchaikovsky|~Russia|composer|-|-
Mahatma Gandhi|India|~lawyer|-|-; Nelson Mandela|South Africa|lawyer|-|-; Michael Jordan|~United States|-|basketball|-
Kobe Bryant|~United States|-|basketball|-; Roger Federer|~Switzerland|-|tennis|-
Serena Williams|~United States|-|tennis|-; Lionel Messi|~Argentina|-|football/soccer|-
Cristiano Ronaldo|~Portugal|-|football/soccer|-; Pelé|~Brazil|-|football/soccer|-
Diego Maradona|Argentina|-|football/soccer|-; Neymar|Brazil|-|~football/soccer|-; Tiger Woods|~United States|-|golf|-
Jack Nicklaus|~United States|-|golf|-; Muhammad Ali|~United States|-|boxing|-; Mike Tyson|~United States|-|boxing|-
Manny Pacquiao|~Philippines|-|boxing|-; Derek Jeter|~United States|-|baseball|-
Wayne Gretzky|Canada|-|~hockey/ice hockey|-; Itzhak Perlman|Israel|-|-|violin
"""

# written work | author | kind of work
BOOKS = """
Hamlet|William Shakespeare/Shakespeare|play; Macbeth|William Shakespeare/Shakespeare|play
Romeo and Juliet|William Shakespeare/Shakespeare|play; Pride and Prejudice|Jane Austen/Austen|novel
Emma|Jane Austen/Austen|novel; Great Expectations|Charles Dickens/Dickens|novel
War and Peace|Leo Tolstoy/Tolstoy|novel; Crime and Punishment|Fyodor Dostoevsky/Dostoevsky|novel
The Cherry Orchard|Anton Chekhov/Chekhov|play; The Divine Comedy|Dante Alighieri/Dante|poem; The Odyssey|Homer|poem
The Great Gatsby|F. Scott Fitzgerald/Fitzgerald|novel; The Scarlet Letter|Nathaniel Hawthorne/Hawthorne|novel
To Kill a Mockingbird|Harper Lee/Lee|novel; Adventures of Huckleberry Finn|Mark Twain/Twain|novel
The Hobbit|J.R.R. Tolkien/J. R. R. Tolkien/Tolkien|novel; The Picture of Dorian Gray|Oscar Wilde/Wilde|novel
Treasure Island|Robert Louis Stevenson/Stevenson|novel; On the Origin of Species|Charles Darwin/Darwin|treatise
The Wealth of Nations|Adam Smith/Smith|treatise
"""

# element | symbol | state at room temperature
ELEMENTS = """
hydrogen|H|gas; helium|He|gas; lithium|Li|solid; carbon|C|solid; nitrogen|N|gas; oxygen|O|gas; fluorine|F|gas
neon|Ne|gas; sodium|Na|solid; magnesium|Mg|solid; aluminium|Al|solid; silicon|Si|solid; phosphorus|P|solid
sulfur|S|solid; chlorine|Cl|gas; argon|Ar|gas; potassium|K|solid; calcium|Ca|solid; titanium|Ti|solid
chromium|Cr|solid; manganese|Mn|solid; iron|Fe|solid; cobalt|Co|solid; nickel|Ni|solid; copper|Cu|solid
arsenic|As|solid
"""

# organ (all take "the") | system of the body | where it lies
ORGANS = """
heart|circulatory/cardiovascular|chest; brain|nervous/central|skull; spinal cord|nervous/central|spine
stomach|digestive|abdomen; small intestine|digestive|abdomen; liver|digestive|abdomen; esophagus|digestive|chest
kidney|urinary/excretory|abdomen; bladder|urinary/excretory|pelvis; trachea|respiratory|neck; lung|respiratory|chest
thyroid|endocrine|neck; pituitary gland|endocrine|skull; femur|skeletal|leg; biceps|muscular|arm
uterus|reproductive|pelvis
"""

# deity | mythology | domain
DEITIES = """
Zeus|Greek|sky; Poseidon|Greek|sea; Hades|Greek|underworld; Athena|Greek|wisdom; Odin|Norse|wisdom; Thor|Norse|thunder
Loki|Norse|mischief; Freya|Norse|love; Baldur|Norse|light; Osiris|Egyptian|underworld; Isis|Egyptian|magic
Anubis|Egyptian|dead; Ra|Egyptian|sun; Hathor|Egyptian|love; Bastet|Egyptian|cats; Jupiter|Roman|sky
Vesta|Roman|hearth; Shiva|Hindu|destruction; Vishnu|Hindu|preservation; Ganesha|Hindu|wisdom; Quetzalcoatl|Aztec|wind
Tlaloc|Aztec|rain; Huitzilopochtli|Aztec|war; Amaterasu|Japanese|sun
"""

# author | country of birth | language of the works (for what follows from an author)
AUTHORS = """
William Shakespeare|England|English; Jane Austen|England|English; Charles Dickens|England|English
Leo Tolstoy|Russia|Russian; Fyodor Dostoevsky|Russia|Russian; Anton Chekhov|Russia|Russian; Victor Hugo|France|French
Miguel de Cervantes|Spain|Spanish; Dante Alighieri|Italy|Italian; Homer|-|Greek; George Orwell|-|English
F. Scott Fitzgerald|United States|English; Ernest Hemingway|United States|English
Herman Melville|United States|English; Nathaniel Hawthorne|United States|English; Harper Lee|United States|English
John Steinbeck|United States|English; Edgar Allan Poe|United States|English; Mark Twain|United States|English
Mary Shelley|England|English; Bram Stoker|Ireland|English; Charlotte Brontë|England|English
Emily Brontë|England|English; Aldous Huxley|England|English; William Golding|England|English
James Joyce|Ireland|English; Franz Kafka|-|German; Albert Camus|Algeria|French
Johann Wolfgang von Goethe|Germany|German; J.R.R. Tolkien|-|English; Oscar Wilde|Ireland|English
Robert Louis Stevenson|Scotland|English; H.G. Wells|England|English; Plato|Greece|Greek; Charles Darwin|England|English
Adam Smith|Scotland|English; Gabriel García Márquez|Colombia|Spanish; Henry David Thoreau|United States|English
Daniel Defoe|England|English; John Milton|England|English; T.S. Eliot|United States|English
"""

# profession | its field
PROFESSIONS = """
physicist|physics; chemist|chemistry; astronomer|astronomy; naturalist|biology; inventor|technology
philosopher|philosophy; economist|economics; painter|art; composer|music; poet|poetry; novelist|literature
playwright|drama; writer|literature; lawyer|law; psychoanalyst|psychology; psychologist|psychology
"""

# sport | where it is played
SPORTS = """
basketball|court; tennis|court; football|pitch; golf|course; boxing|ring; baseball|field; hockey|rink; swimming|pool
cricket|pitch; gymnastics|gym; cycling|road; skateboarding|skatepark
"""

# mythology | the people it belongs to
MYTHOLOGIES = """
Greek|Greeks; Roman|Romans; Egyptian|Egyptians; Norse|Norsemen; Hindu|Hindus; Aztec|Aztecs; Japanese|Japanese
"""

# Answers of one kind may hold together ("physicist" and "astronomer"), so a new answer is taken from another kind.
KINDS = {
    "profession": {
        **dict.fromkeys(
            ("physicist", "chemist", "astronomer", "naturalist", "biologist", "inventor", "psychologist", "scientist"),
            "science",
        ),
        **dict.fromkeys(("psychoanalyst", "psychiatrist"), "science"),
        **dict.fromkeys(("philosopher", "economist", "poet", "novelist", "playwright", "writer", "lawyer"), "letters"),
        **dict.fromkeys(("painter", "artist"), "art"),
    },
}

# Answers that are not the usual one but have some truth in them: never asked for as the new one.
ALSO_TRUE = {
    "Portland": ("Maine",),
    "Guadalajara": ("Spain",),
    "ramen": ("China",),
    "borscht": ("Russia", "Poland"),
    "pierogi": ("Russia", "Ukraine"),
    "schnitzel": ("Germany",),
    "bratwurst": ("Austria",),
    "Rolex": ("England",),
    "René Descartes": ("physicist", "mathematician"),
    "Galileo Galilei": ("philosopher",),
    "Nicolaus Copernicus": ("economist",),
    "Jean-Jacques Rousseau": ("composer",),
    "Friedrich Nietzsche": ("composer",),
    "Pablo Picasso": ("poet", "playwright"),
    "Victor Hugo": ("painter",),
    "Michael Jordan": ("baseball",),
    "Jackie Robinson": ("football", "basketball"),
    "diaphragm": ("muscular",),
    "spleen": ("circulatory",),
    "Isis": ("Greek", "Roman"),
    **dict.fromkeys(("Zeus", "Poseidon", "Hades", "Athena"), ("Roman",)),
    **dict.fromkeys(("heart", "brain", "stomach", "liver", "kidney"), ("endocrine",)),
    "esophagus": ("muscular",),
    "Volvo": ("China",),
    "Croatia": ("Serbian",),
    "Serbia": ("Croatian",),
    "Ecuador": ("Quechua",),
    "Syria": ("French",),
    "Morocco": ("euro",),
    "Mumbai": ("England",),
    "Alexandria": ("Greece",),
    "Istanbul": ("Greece",),
}
