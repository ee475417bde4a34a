"""The scenes of the task `words`: what happens, in several wordings each. Imports no jax.

`{name}` and `{other}` are people, `{things}` what is counted, `{a}` and `{b}` numbers of at least 2. A scene is for
training or held out as a whole, so that no sentence of a held-out problem was ever trained on.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """The wordings of one scene.

    Attributes:
        things: what may be counted.
        start: an opening with one number.
        groups: an opening with two numbers, which are multiplied.
        more: what adds a number.
        fewer: what takes a number away.
        ask: the question that ends the problem.
        held_out: the scene is for held-out problems alone.
    """

    things: tuple[str, ...]
    start: tuple[str, ...]
    groups: tuple[str, ...]
    more: tuple[str, ...]
    fewer: tuple[str, ...]
    ask: tuple[str, ...]
    held_out: bool = False


NAMES = (
    *("Ana", "Ben", "Chen", "Dina", "Emil", "Fatima", "Goran", "Hana", "Ivan", "Jada", "Kofi", "Lena", "Mateo"),
    *("Nora", "Omar", "Priya", "Quinn", "Rosa", "Sven", "Tariq", "Uma", "Vera", "Wei", "Yara", "Zoe"),
)

SCENES = (
    Scene(
        things=("marbles", "stickers", "stamps", "cards"),
        start=("{name} has {a} {things}.", "There are {a} {things} in {name}'s collection."),
        groups=("{name} has {a} boxes with {b} {things} in each.", "{name} fills {a} bags with {b} {things} per bag."),
        more=("{other} gives {name} {b} more.", "At home {name} finds another {b}.", "{name} buys {b} new ones."),
        fewer=("{name} gives {b} of them to {other}.", "Then {b} of them get lost.", "{name} trades {b} away."),
        ask=("How many {things} does {name} have now?", "How many {things} does {name} end up with?"),
    ),
    Scene(
        things=("cookies", "muffins", "rolls", "pies"),
        start=("{name} bakes {a} {things}.", "A baker called {name} has {a} {things} on the counter."),
        groups=("{name} bakes {a} trays of {b} {things}.", "On each of {a} plates {name} puts {b} {things}."),
        more=("Later {name} bakes {b} more.", "Another {b} come out of the oven.", "{other} brings {b} more."),
        fewer=("{other} eats {b} of them.", "A customer buys {b}.", "{name} has to throw {b} away."),
        ask=("How many {things} are there in the end?", "How many {things} does that leave?"),
    ),
    Scene(
        things=("passengers", "people", "students", "tourists"),
        start=("A bus leaves with {a} {things}.", "There are {a} {things} on a train."),
        groups=("A train has {a} cars, each with {b} {things}.", "{a} rows of a bus hold {b} {things} each."),
        more=("At the next stop {b} get on.", "Then {b} more board.", "In town {b} {things} join them."),
        fewer=("At the market {b} get off.", "Then {b} of them leave.", "By the river {b} step out."),
        ask=("How many {things} are on board now?", "How many {things} travel on?"),
    ),
    Scene(
        things=("books", "comics", "magazines", "maps"),
        start=("A shelf holds {a} {things}.", "{name} counts {a} {things} in the library."),
        groups=("A bookcase has {a} shelves of {b} {things}.", "{name} stacks {a} piles with {b} {things} apiece."),
        more=("{other} returns {b} {things}.", "A parcel with {b} more arrives.", "{name} adds {b} new {things}."),
        fewer=("{other} borrows {b}.", "{name} sells {b} of the {things}.", "{b} of them are given to a school."),
        ask=("How many {things} are there now?", "What is the number of {things} after that?"),
    ),
    Scene(
        things=("dollars", "euros", "coins", "tokens"),
        start=("{name} saves {a} {things}.", "{name}'s purse holds {a} {things}."),
        groups=(
            "{name} earns {b} {things} a day for {a} days.",
            "For {a} weeks {name} puts aside {b} {things} a week.",
        ),
        more=("Then {name} earns {b} more.", "{name} gets {b} {things} from {other}.", "A neighbor pays {name} {b}."),
        fewer=("{name} spends {b} on a gift.", "Lunch costs {name} {b} {things}.", "{name} lends {other} {b}."),
        ask=("How many {things} does {name} have left?", "How much does {name} have now, in {things}?"),
    ),
    Scene(
        things=("fish", "snails", "frogs", "turtles"),
        start=("A pond is home to {a} {things}.", "{name} keeps {a} {things} in a tank."),
        groups=("{name} has {a} tanks, and {b} {things} live in each.", "In every one of {a} ponds swim {b} {things}."),
        more=("In spring {b} more hatch.", "{name} adds {b} {things}.", "{other} drops off another {b}."),
        fewer=("{b} of them swim away.", "{name} moves {b} somewhere else.", "A zoo takes {b}."),
        ask=("How many {things} are there now?", "How many {things} remain?"),
    ),
    Scene(
        things=("points", "goals", "wins"),
        start=("{name}'s team begins the month with {a} {things}.", "After one round {name} has {a} {things}."),
        groups=(
            "In {a} rounds {name} scores {b} {things} each time.",
            "{name} plays {a} games and gets {b} {things} in each.",
        ),
        more=("The next round brings {b} more.", "A bonus adds {b}.", "{name} then wins {b} {things}."),
        fewer=("A penalty costs {b}.", "The referee takes {b} {things} back.", "Because of a mistake {b} are removed."),
        ask=("How many {things} does {name} have at the end?", "What is {name}'s total of {things}?"),
    ),
    Scene(
        things=("liters of water", "liters of juice", "cups of tea", "cups of soup"),
        start=("A barrel holds {a} {things}.", "{name} pours {a} {things} into a pot."),
        groups=(
            "{name} empties {a} jugs of {b} {things} into a barrel.",
            "{a} cans with {b} {things} each fill a tub.",
        ),
        more=("Then {name} pours in {b} more.", "{other} adds {b}.", "Overnight {b} more run in."),
        fewer=("The guests drink {b}.", "{b} leak out.", "{name} uses {b} of it for cooking."),
        ask=("How many {things} are in it now?", "How many {things} are left?"),
    ),
    Scene(
        things=("pencils", "crayons", "erasers", "rulers"),
        start=("In a classroom there are {a} {things}.", "{name}, a teacher, starts with {a} {things}."),
        groups=("{name} unpacks {a} packs of {b} {things}.", "Each of {a} desks in {name}'s class holds {b} {things}."),
        more=("The school sends {b} more.", "{other} lends the class {b}.", "{name} buys {b} extra {things}."),
        fewer=("{b} of them break.", "{name} hands out {b}.", "The children use up {b} {things}."),
        ask=("How many {things} does the class have now?", "How many {things} are still there?"),
    ),
    Scene(
        things=("steps", "stairs", "floors"),
        start=("{name} climbs {a} {things}.", "{name} begins on a tower, {a} {things} up."),
        groups=("{name} climbs {a} flights of {b} {things}.", "{name} goes up {b} {things} a minute for {a} minutes."),
        more=(
            "Then {name} goes up {b} more.",
            "After a rest {name} climbs another {b}.",
            "{name} runs up {b} {things}.",
        ),
        fewer=(
            "{name} walks {b} back down.",
            "To meet {other}, {name} comes down {b}.",
            "{name} goes down {b} {things}.",
        ),
        ask=("How many {things} up is {name} now?", "How high is {name} now, in {things}?"),
    ),
    Scene(
        things=("apples", "pears", "plums", "cherries"),
        start=("{name} picks {a} {things}.", "A basket of {name}'s holds {a} {things}."),
        groups=(
            "{name} picks {b} {things} from each of {a} trees.",
            "{name} fills {a} baskets with {b} {things} apiece.",
        ),
        more=(
            "{other} picks {b} more for the basket.",
            "Under a tree are another {b}, which {name} takes.",
            "{name} adds {b}.",
        ),
        fewer=("{name} eats {b} on the way.", "{b} are rotten and go to the goats.", "{name} hands {b} to {other}."),
        ask=("How many {things} does {name} bring home?", "How many {things} are in the end with {name}?"),
    ),
    Scene(
        things=("photos", "songs", "videos", "files"),
        start=("{name}'s phone stores {a} {things}.", "{name} has {a} {things} on a disk."),
        groups=("{name} makes {a} albums of {b} {things}.", "{a} folders of {name}'s hold {b} {things} each."),
        more=("{name} saves {b} new {things}.", "{other} sends {b} more.", "A backup brings back {b}."),
        fewer=(
            "{name} deletes {b}.",
            "{b} of the {things} turn out to be damaged and go.",
            "{name} moves {b} elsewhere.",
        ),
        ask=("How many {things} are stored now?", "How many {things} does {name} keep?"),
    ),
    # Held out.
    Scene(
        things=("tulips", "roses", "carrots", "onions"),
        start=("{name} plants {a} {things}.", "{a} {things} grow in {name}'s garden."),
        groups=(
            "{name} plants {a} rows of {b} {things}.",
            "There are {a} beds in a garden, with {b} {things} in every bed.",
        ),
        more=("A week later {name} plants {b} more.", "{other} sets {b} {things} next to them.", "{b} more come up."),
        fewer=("Rabbits eat {b} of them.", "A storm ruins {b}.", "{name} pulls out {b} for {other}."),
        ask=("How many {things} grow there now?", "How many {things} has the garden after that?"),
        held_out=True,
    ),
    Scene(
        things=("sheep", "goats", "hens", "ducks"),
        start=("{name} raises {a} {things}.", "A farm of {name}'s has {a} {things}."),
        groups=("{name} keeps {b} {things} in each of {a} barns.", "{a} pens on a farm hold {b} {things} apiece."),
        more=("{b} more are born.", "{name} brings {b} from the fair.", "{other}'s {b} {things} join the herd."),
        fewer=("{name} sells {b} at the fair.", "{b} {things} run off.", "A neighbor takes {b} in return for hay."),
        ask=("How many {things} live on the farm now?", "How many {things} does {name} own after this?"),
        held_out=True,
    ),
    Scene(
        things=("letters", "parcels", "postcards"),
        start=("A carrier sets out with {a} {things}.", "At the post office there are {a} {things}."),
        groups=("A carrier loads {a} sacks of {b} {things}.", "{a} trucks bring {b} {things} each to the post office."),
        more=("{name} hands in {b} more.", "The noon train delivers {b}.", "{b} {things} from abroad come in."),
        fewer=("{b} are delivered on Main Street.", "{other} collects {b}.", "{b} {things} go back to the sender."),
        ask=("How many {things} still wait?", "How many {things} have to be delivered after that?"),
        held_out=True,
    ),
    Scene(
        things=("bricks", "planks", "tiles", "nails"),
        start=("A builder named {name} orders {a} {things}.", "On a site there are {a} {things}."),
        groups=(
            "{name} orders {a} pallets of {b} {things}.",
            "A crane lifts {b} {things} at a time and does so {a} times.",
        ),
        more=("A second truck unloads {b} more.", "{other} leaves {b} spare {things}.", "{name} orders {b} on top."),
        fewer=("A wall takes {b} of them.", "{b} crack in the frost.", "{name} returns {b} to the shop."),
        ask=("How many {things} are on the site now?", "How many {things} has {name} to build with?"),
        held_out=True,
    ),
)
