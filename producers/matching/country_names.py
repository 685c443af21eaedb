"""Countries by ISO 3166-1 alpha-2 code: alpha-3 code, English name, names people type.

One line a country: code, alpha-3, then names separated by "|", all in lower case without accents' loss: a name is
compared after `places.name_key`, which drops punctuation and white space. Standard: ISO 3166-1 (2020).
"""

from __future__ import annotations

TABLE = """
ad and andorra
ae are united arab emirates|uae|emirates
af afg afghanistan
ag atg antigua and barbuda
ai aia anguilla
al alb albania|shqiperia|shqipëria
am arm armenia
ao ago angola
aq ata antarctica
ar arg argentina
as asm american samoa
at aut austria|österreich|oesterreich|osterreich
au aus australia
aw abw aruba
ax ala åland islands|aland islands|åland
az aze azerbaijan
ba bih bosnia and herzegovina|bosnia|bosna i hercegovina
bb brb barbados
bd bgd bangladesh
be bel belgium|belgië|belgie|belgique|belgien
bf bfa burkina faso
bg bgr bulgaria|българия
bh bhr bahrain
bi bdi burundi
bj ben benin
bl blm saint barthelemy|saint barthélemy
bm bmu bermuda
bn brn brunei|brunei darussalam
bo bol bolivia|plurinational state of bolivia
bq bes bonaire sint eustatius and saba|caribbean netherlands
br bra brazil|brasil
bs bhs bahamas|the bahamas
bt btn bhutan
bv bvt bouvet island
bw bwa botswana
by blr belarus|беларусь
bz blz belize
ca can canada
cc cck cocos islands|cocos keeling islands
cd cod democratic republic of the congo|congo kinshasa|dr congo|drc
cf caf central african republic
cg cog congo|republic of the congo|congo brazzaville
ch che switzerland|schweiz|suisse|svizzera
ci civ ivory coast|cote d'ivoire|côte d'ivoire
ck cok cook islands
cl chl chile
cm cmr cameroon|cameroun
cn chn china|people's republic of china|prc|中国
co col colombia
cr cri costa rica
cu cub cuba
cv cpv cape verde|cabo verde
cw cuw curacao|curaçao
cx cxr christmas island
cy cyp cyprus|κύπρος
cz cze czechia|czech republic|česko|cesko|česká republika
de deu germany|deutschland|allemagne|alemania|federal republic of germany
dj dji djibouti
dk dnk denmark|danmark
dm dma dominica
do dom dominican republic|república dominicana
dz dza algeria|algérie
ec ecu ecuador
ee est estonia|eesti
eg egy egypt|مصر
eh esh western sahara
er eri eritrea
es esp spain|españa|espana|spanien|espagne
et eth ethiopia
fi fin finland|suomi
fj fji fiji
fk flk falkland islands|islas malvinas
fm fsm micronesia|federated states of micronesia
fo fro faroe islands|føroyar
fr fra france|frankreich|francia
ga gab gabon
gb gbr united kingdom|uk|great britain|britain|england|scotland|wales|northern ireland
gd grd grenada
ge geo georgia|საქართველო
gf guf french guiana
gg ggy guernsey
gh gha ghana
gi gib gibraltar
gl grl greenland
gm gmb gambia|the gambia
gn gin guinea
gp glp guadeloupe
gq gnq equatorial guinea
gr grc greece|el|ελλάδα|ellada|hellas
gs sgs south georgia and the south sandwich islands
gt gtm guatemala
gu gum guam
gw gnb guinea bissau
gy guy guyana
hk hkg hong kong|香港
hm hmd heard island and mcdonald islands
hn hnd honduras
hr hrv croatia|hrvatska
ht hti haiti
hu hun hungary|magyarország|magyarorszag
id idn indonesia
ie irl ireland|éire|eire|republic of ireland
il isr israel|ישראל
im imn isle of man
in ind india|bharat|भारत
io iot british indian ocean territory
iq irq iraq
ir irn iran|islamic republic of iran
is isl iceland|ísland|island
it ita italy|italia|italien|italie
je jey jersey
jm jam jamaica
jo jor jordan
jp jpn japan|nippon|nihon|日本
ke ken kenya
kg kgz kyrgyzstan
kh khm cambodia
ki kir kiribati
km com comoros
kn kna saint kitts and nevis
kp prk north korea|democratic people's republic of korea
kr kor south korea|korea|republic of korea|대한민국|한국
kw kwt kuwait
ky cym cayman islands
kz kaz kazakhstan
la lao laos
lb lbn lebanon
lc lca saint lucia
li lie liechtenstein
lk lka sri lanka
lr lbr liberia
ls lso lesotho
lt ltu lithuania|lietuva
lu lux luxembourg|luxemburg|lëtzebuerg
lv lva latvia|latvija
ly lby libya
ma mar morocco|maroc
mc mco monaco
md mda moldova|republic of moldova
me mne montenegro|crna gora
mf maf saint martin
mg mdg madagascar
mh mhl marshall islands
mk mkd north macedonia|macedonia
ml mli mali
mm mmr myanmar|burma
mn mng mongolia
mo mac macao|macau
mp mnp northern mariana islands
mq mtq martinique
mr mrt mauritania
ms msr montserrat
mt mlt malta
mu mus mauritius
mv mdv maldives
mw mwi malawi
mx mex mexico|méxico
my mys malaysia
mz moz mozambique|moçambique
na nam namibia
nc ncl new caledonia
ne ner niger
nf nfk norfolk island
ng nga nigeria
ni nic nicaragua
nl nld netherlands|the netherlands|nederland|holland|niederlande|pays bas
no nor norway|norge
np npl nepal
nr nru nauru
nu niu niue
nz nzl new zealand|aotearoa
om omn oman
pa pan panama|panamá
pe per peru|perú
pf pyf french polynesia
pg png papua new guinea
ph phl philippines|pilipinas
pk pak pakistan
pl pol poland|polska|polen
pm spm saint pierre and miquelon
pn pcn pitcairn
pr pri puerto rico
ps pse palestine|state of palestine
pt prt portugal
pw plw palau
py pry paraguay
qa qat qatar
re reu reunion|réunion
ro rou romania|românia
rs srb serbia|srbija|србија
ru rus russia|russian federation|россия
rw rwa rwanda
sa sau saudi arabia|ksa
sb slb solomon islands
sc syc seychelles
sd sdn sudan
se swe sweden|sverige|schweden
sg sgp singapore
sh shn saint helena
si svn slovenia|slovenija
sj sjm svalbard and jan mayen
sk svk slovakia|slovensko
sl sle sierra leone
sm smr san marino
sn sen senegal|sénégal
so som somalia
sr sur suriname
ss ssd south sudan
st stp sao tome and principe|são tomé and príncipe
sv slv el salvador
sx sxm sint maarten
sy syr syria|syrian arab republic
sz swz eswatini|swaziland
tc tca turks and caicos islands
td tcd chad|tchad
tf atf french southern territories
tg tgo togo
th tha thailand
tj tjk tajikistan
tk tkl tokelau
tl tls timor leste|east timor
tm tkm turkmenistan
tn tun tunisia|tunisie
to ton tonga
tr tur turkey|türkiye|turkiye
tt tto trinidad and tobago
tv tuv tuvalu
tw twn taiwan|臺灣|台灣
tz tza tanzania|united republic of tanzania
ua ukr ukraine|україна
ug uga uganda
um umi united states minor outlying islands
us usa united states|united states of america|america|estados unidos|u.s.
uy ury uruguay
uz uzb uzbekistan
va vat vatican|vatican city|holy see
vc vct saint vincent and the grenadines
ve ven venezuela
vg vgb british virgin islands
vi vir us virgin islands|virgin islands
vn vnm vietnam|viet nam|việt nam
vu vut vanuatu
wf wlf wallis and futuna
ws wsm samoa
xk xkx kosovo
ye yem yemen
yt myt mayotte
za zaf south africa|suid afrika
zm zmb zambia
zw zwe zimbabwe
"""

# Official names that no rule of `regions` derives; the same form.
OFFICIAL = """
fr fra french republic
ch che swiss confederation
tw twn republic of china
mx mex united mexican states
ar arg argentine republic
cd cod congo the democratic republic of the|democratic republic of congo
fk flk falkland islands malvinas
ga gab gabonese republic
gb gbr united kingdom of great britain and northern ireland
gr grc hellenic republic
hk hkg hong kong special administrative region of china
it ita italian republic
kg kgz kyrgyz republic
la lao lao peoples democratic republic
lb lbn lebanese republic
mo mac macao special administrative region of china
mf maf saint martin french part
pt prt portuguese republic
rw rwa rwandese republic|rwandan republic
sh shn saint helena ascension and tristan da cunha
sk svk slovak republic
sx sxm sint maarten dutch part
tg tgo togolese republic
va vat holy see vatican city state
vi vir virgin islands of the united states
de deu bundesrepublik deutschland
at aut republik osterreich|republik österreich
ch che schweizerische eidgenossenschaft
es esp reino de españa
fr fra république française
it ita repubblica italiana
"""
