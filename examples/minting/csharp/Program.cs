// Prints a context for countersign.   usage: dotnet run -- KEY_FILE KID
//
// HS256 only: neither .NET 8 nor Microsoft.IdentityModel signs with Ed25519. With NSec.Cryptography or BouncyCastle,
// sign the ASCII bytes of base64url(header) + "." + base64url(claims), with "alg": "EdDSA" in the header.

using System.Text;
using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Tokens;

var (keyFile, kid) = (args[0], args[1]);
var secret = File.ReadAllText(keyFile).Trim();
var key = new SymmetricSecurityKey(Encoding.UTF8.GetBytes(secret)) { KeyId = kid }; // KeyId becomes the header kid

var token = new JsonWebTokenHandler { SetDefaultTimesOnTokenCreation = false }.CreateToken(new SecurityTokenDescriptor
{
    Claims = new Dictionary<string, object>
    {
        ["instance_id"] = "PO-77",
        ["task_id"] = "n2",
        ["round"] = "1",                                          // a new one whenever the task is opened again
        ["operators"] = new[] { "zhang3" },                       // user_id of those who may decide
        ["actions"] = new[] { "APPROVE", "REJECT" },
        ["endpoint"] = "purchase",
        ["data"] = new Dictionary<string, object> { ["amount"] = "12000.00" },   // for your worker
    },
    Expires = DateTime.UtcNow.AddHours(72),
    SigningCredentials = new SigningCredentials(key, SecurityAlgorithms.HmacSha256),
});
Console.WriteLine(token);
